#!/bin/sh
# From nothing to two model directories: the CAT and its dense twin, each with its card.
#
#   tools/train/run.sh text   WORK OUT [MINUTES]    English (MINUTES of the CAT: 160 by default)
#   tools/train/run.sh recall WORK OUT [MINUTES]    associative recall (60 by default)
#
# OUT is the CAT, OUT-dense its twin: trained on as many tokens at two learning rates, the better
# of the two kept. Stopped and started again with the same WORK, it goes on where it was.
set -eu
usage() {
    echo "run.sh: $1; usage: tools/train/run.sh text|recall WORK OUT [MINUTES]" >&2
    exit 2
}
case ${1-} in
text | recall) ;;
*) usage "the task is text or recall, not \"${1-}\"" ;;
esac
[ $# -eq 3 ] || [ $# -eq 4 ] || usage "it takes three or four words, not $#"
task=$1 work=$2 out=$3
here=$(dirname "$(readlink -f "$0")")
python=/usr/bin/python3 # Debian's, which has python3-torch
threads=$(nproc)
"$here/../install_deps.sh" tools/train/debian_packages.txt

# Passive waiting: spinning threads stall on a busy machine. The allocator keeps freed
# memory, for every step asks for the same large blocks again.
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS="$threads"
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=67108864

mkdir -p "$work"
"$python" "$here/check_golden.py"
case $task in
text)
    minutes=${4:-160}
    if [ ! -f "$work/train.bin" ]; then
        [ -x "$work/venv/bin/python" ] || "$python" -m venv --system-site-packages "$work/venv"
        "$work/venv/bin/pip" install -q -r "$here/requirements.txt"
        "$python" "$here/corpus.py" "$work"
        "$work/venv/bin/python" "$here/make_tokenizer.py" "$work"
    fi
    # shellcheck disable=SC2086 # the last are flags
    train() { "$python" "$here/train.py" "$1" "$work" "$work/$2.pt" --threads "$threads" $3; }
    rates='1e-3 2e-3'
    ;;
recall)
    minutes=${4:-60}
    # shellcheck disable=SC2086 # the last are flags
    train() { "$python" "$here/recall.py" "$1" "$work/$2.pt" --threads "$threads" $3; }
    rates='1e-3 3e-3'
    ;;
esac

train cat cat "--minutes $minutes"
tokens=$("$python" "$here/choose.py" --tokens "$work/cat.pt") # of the CAT, so also of its twin
set -- # from here on the twins
for rate in $rates; do
    train dense "dense-$rate" "--lr $rate --tokens $tokens"
    set -- "$@" "$work/dense-$rate.pt"
done
twin=$("$python" "$here/choose.py" "$@")
"$python" "$here/export.py" "$work/cat.pt" "$work" "$out"
"$python" "$here/export.py" "$twin" "$work" "$out-dense"
"$python" "$here/make_card.py" "$out" "$out-dense" "$work" "$work/cat.pt" "$twin"
