#!/usr/bin/env bash
# The speeds that the documents quote, on an otherwise idle machine: bash benchmarks/speed.sh OUT
# About forty minutes on two cores. Each line is one run with its own JSON; every subject has a process of its own.
set -eu
out=${1:?a folder for the JSON files}
mkdir -p "$out"
bench() { # NAME OPTIONS...
    local name=$1
    shift
    echo "-- triptych bench $*"
    python -m triptych bench "$@" --json "$out/$name.json" --csv "$out/$name.csv"
}
vgg=(--arch vgg11 --width-ratio 4 --dense-width 1024 --batch-size 128 --data fashion-mnist-mini --steps 2 --rounds 10)
bench vgg11-32 "${vgg[@]}" --resolution 32 --vs textbook
bench vgg11-32-tuned "${vgg[@]}" --resolution 32 --vs textbook --tuned
bench vgg11-96 "${vgg[@]}" --resolution 96 --vs textbook
bench vgg11-96-tuned "${vgg[@]}" --resolution 96 --vs textbook --tuned
bench vgg11-32-bf16 "${vgg[@]}" --resolution 32 --vs textbook --backends torch --precision bf16
bench vgg11-96-bf16 "${vgg[@]}" --resolution 96 --vs textbook --backends torch --precision bf16
bench lenet --arch lenet --resolution 28 --batch-size 256 --data fashion-mnist-mini --vs textbook
echo "-- locate in 6 GB and 3 minutes"
/usr/bin/time -v python -m triptych locate --arch vgg16 --input 3x224x224 2>&1 | tee "$out/locate.txt" |
    grep -E "difference|Maximum resident|Elapsed"
