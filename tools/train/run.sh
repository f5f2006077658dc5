#!/bin/sh
# From nothing to two model directories: the CAT and its dense twin.
# Usage: tools/train/run.sh WORK OUT [MINUTES]     (MINUTES: for the CAT, default 60)
# Stopped and started again with the same WORK, it goes on where it was.
set -eu
work=$1 out=$2 minutes=${3:-60}
here=$(dirname "$(readlink -f "$0")")
python=/usr/bin/python3 # Debian's, which has python3-torch
threads=$(nproc)

# Passive waiting: spinning threads stall on a busy machine. The allocator keeps freed
# memory, for every step asks for the same large blocks again.
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS="$threads" PYTHONUNBUFFERED=1
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=67108864
"$python" - <<'EOF'
import sys, time, torch
a = torch.randn(1024, 1024)
begin = time.time()
a @ a
if time.time() - begin > 0.4:
    sys.exit('run.sh: install libopenblas0: the reference BLAS is thirty times slower')
EOF

mkdir -p "$work"
if [ ! -f "$work/train.bin" ]; then
    [ -x "$work/venv/bin/python" ] || "$python" -m venv --system-site-packages "$work/venv"
    "$work/venv/bin/pip" install -q -r "$here/requirements.txt"
    "$python" "$here/corpus.py" "$work"
    "$work/venv/bin/python" "$here/make_tokenizer.py" "$work"
fi
"$python" "$here/check_golden.py"
"$python" "$here/train.py" cat "$work" "$work/cat.pt" --minutes "$minutes" --threads "$threads"
steps=$("$python" -c 'import sys, torch; print(torch.load(sys.argv[1])["step"])' "$work/cat.pt")
"$python" "$here/train.py" dense "$work" "$work/dense.pt" --steps "$steps" --threads "$threads"
for kind in cat dense; do
    case $kind in cat) dir=$out ;; dense) dir=$out-dense ;; esac
    "$python" "$here/export.py" "$work/$kind.pt" "$work" "$dir"
done
"$python" "$here/make_card.py" "$out" "$out-dense" "$work"
"$python" "$here/sample.py" "$out" "$work"
