#!/usr/bin/env bash
# The whole road in the shell: adapt, pack, verify, apply, score.
#   examples/road.sh IMAGES LABELED WEIGHTS OUT [smn adapt options]
# IMAGES: unlabeled images. LABELED: train/ and test/ by class. WEIGHTS: EfficientNet-Lite0. OUT: a new folder.
set -euo pipefail
images=$1 labeled=$2 weights=$3 out=$4
shift 4
mkdir -p "$out"
smn adapt "$images" --arch tf_efficientnet_lite0 --weights "$weights" --out "$out/run" "$@"
smn pack "$out/run" --out "$out/adapter.safetensors"
smn verify "$out/adapter.safetensors" --weights "$weights"
smn apply "$out/adapter.safetensors" --weights "$weights" --out "$out/adapted.safetensors"
smn eval "$labeled" --adapter "$out/adapter.safetensors" --weights "$weights" --knn --json "$out/eval.json"
