#!/usr/bin/env bash
# The speeds that the documents quote, on an otherwise idle machine: bash benchmarks/speed.sh OUT
# Then: python benchmarks/speed_page.py OUT > benchmarks/results/speed.md
# Each line is one run with its own JSON; every subject has a process of its own. A run that is there is not made again.
set -eu
out=${1:?a folder for the JSON files}
mkdir -p "$out"
bench() { # NAME OPTIONS...
    local name=$1
    shift
    [ -e "$out/$name.json" ] && return
    echo "-- triptych bench $*"
    python -m triptych bench "$@" --json "$out/$name.json" --csv "$out/$name.csv"
}
vgg=(--arch vgg11 --width-ratio 4 --dense-width 1024 --batch-size 128 --data fashion-mnist-mini --steps 2 --vs textbook)
bench lenet --arch lenet --resolution 28 --batch-size 256 --data fashion-mnist-mini --vs textbook
for size in 32 96; do
    bench vgg11-$size "${vgg[@]}" --resolution $size --rounds 10 --backends torch
    bench vgg11-$size-step "${vgg[@]}" --resolution $size --rounds 10 --backends mxnet,jax --kinds training
done
if grep -q avx512_bf16 /proc/cpuinfo; then # elsewhere products of bfloat16 are emulated
    bench vgg11-32-bf16 "${vgg[@]}" --resolution 32 --rounds 10 --backends torch --precision bf16
    bench vgg11-96-bf16 "${vgg[@]}" --resolution 96 --rounds 10 --backends torch --precision bf16
fi
for arch in vgg11 inception_v3; do # what is compiled is kept in a cache, which is empty at the first start
    for start in cold warm; do
        XDG_CACHE_HOME="$out/cache-$arch" bench "first-$arch-$start" --arch "$arch" --resolution 96 --batch-size 16 \
            --backends jax --vs nnx --steps 1 --rounds 1 --kinds training
    done
done
echo "-- locate in 6 GB and 3 minutes"
/usr/bin/time -v python -m triptych locate --arch vgg16 --input 3x224x224 2>&1 | tee "$out/locate.txt" |
    grep -E "difference|Maximum resident|Elapsed"
