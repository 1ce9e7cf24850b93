#!/usr/bin/env bash
# The whole road on one data set, with times: adapt, pack, apply, verify, eval.
#   benchmarks/road.sh LIST LABELED WORK
# LIST: a text file of unlabeled images (benchmarks/quality.py writes one a set). LABELED: train/ and test/ by class.
set -euo pipefail
list=$1 labeled=$2 work=$3
weights=$(python -c 'from smn_cli.backbones.packaged import lite0_weights; print(lite0_weights())')
arch="--arch tf_efficientnet_lite0 --weights $weights"
mkdir -p "$work"
time smn adapt "$list" $arch --out "$work/run" --overwrite
time smn pack "$work/run" --out "$work/adapter.safetensors" --overwrite
time smn apply "$work/adapter.safetensors" --weights "$weights" --out "$work/adapted.safetensors" --overwrite
time smn verify "$work/adapter.safetensors" --weights "$weights" --checkpoint "$work/adapted.safetensors"
time smn eval "$labeled" --adapter "$work/adapter.safetensors" --weights "$weights" --knn --linear \
  --max-train 5000 --max-test 2000 --min-gain knn.top1=0.0 --json "$work/eval.json"
