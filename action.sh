#!/usr/bin/env bash
# What action.yml runs: smn eval with the action's inputs, which come as variables, then the action's outputs.
# The exit code is that of smn eval: 3 if a gate failed (docs/cli.md has all). smn writes $GITHUB_STEP_SUMMARY by itself.
set -euo pipefail -o noglob

words=()

# add OPTION LINES: the option once for each line that is not empty
add() {
  local value
  while read -r value || [[ -n $value ]]; do
    if [[ -n $value ]]; then words+=("$1=$value"); fi
  done <<<"${2//$'\r'/}"
}

add --adapter "$SMN_ADAPTER"
add --weights "${SMN_WEIGHTS:-}"
add --fail-under "${SMN_FAIL_UNDER:-}"
add --min-gain "${SMN_MIN_GAIN:-}"
add --json "${SMN_JSON:=smn-eval.json}"
add --report "${SMN_REPORT:-}"
if [[ -n ${SMN_FAIL_UNDER:-}${SMN_MIN_GAIN:-} ]]; then add --junit "${SMN_JUNIT:-}"; fi
for score in ${SMN_SCORES:-knn}; do words+=("--$score"); done
for word in ${SMN_ARGUMENTS:-}; do words+=("$word"); done

code=0
smn eval "${words[@]}" -- "$SMN_DATA" || code=$?

if [[ -n ${GITHUB_OUTPUT:-} ]]; then
  echo "exit-code=$code" >>"$GITHUB_OUTPUT"
  # with any other code the JSON, if there is one, is an older one
  if [[ $code == 0 || $code == 3 ]]; then
    python -c '
import json, sys
result = json.load(open(sys.argv[1], encoding="utf-8"))
print("verdict=" + result.get("verdict", ""))
print("passed=" + str(result["passed"]).lower())
' "$SMN_JSON" >>"$GITHUB_OUTPUT"
  fi
fi
exit "$code"
