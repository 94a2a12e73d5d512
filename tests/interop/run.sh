#!/usr/bin/env bash
# Clients of ZooKeeper that nobody here wrote, against one member and against three:
# kazoo and its recipes, Apache's C client, zkCli.sh; and examples/import from Debian's ZooKeeper.
#   tests/interop/run.sh
# Env: INTEROP_PYTHON   a Python that has kazoo (python3)
#      INTEROP_PORT     the first port (25300)
#      INTEROP_PROFILE  release, or dev for servers that are built sooner
set -euo pipefail
cd "$(dirname "$0")/../.."

missing() {
    echo "missing: $1" >&2
    echo "install: $2" >&2
    exit 1
}

export INTEROP_PYTHON=${INTEROP_PYTHON:-python3}
"$INTEROP_PYTHON" -c "import kazoo" 2>/dev/null ||
    missing "kazoo for $INTEROP_PYTHON" "pip install kazoo, or name another one in INTEROP_PYTHON"
command -v cc >/dev/null || missing "a C compiler" "apt install gcc libc6-dev"
[ -f /usr/include/zookeeper/zookeeper.h ] ||
    missing "the C client" "apt install libzookeeper-mt-dev"
[ -x "${ZKCLI:-/usr/share/zookeeper/bin/zkCli.sh}" ] || missing "zkCli.sh" "apt install zookeeper"
command -v java >/dev/null || missing "java" "apt install default-jre-headless"

profile=${INTEROP_PROFILE:-release}
cargo build --profile "$profile" --all-features --example zookeeper_server --example import
built=$(realpath "${CARGO_TARGET_DIR:-target}")/${profile/#dev/debug}/examples
export INTEROP_SERVER=$built/zookeeper_server INTEROP_IMPORT=$built/import
INTEROP_DIR=$(mktemp -d)
export INTEROP_DIR
results=$INTEROP_DIR/results
cluster=tests/interop/cluster.sh
trap '[ ! -f "$INTEROP_DIR/members" ] || "$cluster" stop; rm -r "$INTEROP_DIR"' EXIT
cc -O1 -Wall -Werror -DTHREADED tests/interop/client.c -lzookeeper_mt -o "$INTEROP_DIR/client"

# Its lines, behind the number of members.
noted() {
    local members=$1 line
    shift
    "$@" | while read -r line; do
        echo "$line"
        echo "$members $line" >>"$results"
    done || echo "$members FAILED ${*##*/} does not end well" >>"$results"
}

# A lock and an election of both worlds.
mixed() {
    local said
    said=$(QUORATE_KAZOO=$INTEROP_PYTHON cargo test --all-features --test zookeeper kazoo 2>&1) &&
        echo "ok kazoo contends with handles of this crate" ||
        { echo "$said" >&2 && return 1; }
}

for members in 1 3; do
    "$cluster" start "$members"
    hosts=$("$cluster" hosts)
    noted "$members" "$INTEROP_PYTHON" tests/interop/recipes.py "$hosts" "$cluster"
    noted "$members" "$INTEROP_DIR/client" "$hosts"
    noted "$members" tests/interop/cli.sh "$hosts"
    "$cluster" stop
done
# Into members that have nothing yet.
"$cluster" start 3
noted 3 tests/interop/import.sh "$("$cluster" hosts)"

noted 3 mixed

"$INTEROP_PYTHON" - "$results" <<'EOF'
import sys
table, failed = {}, 0
for line in open(sys.argv[1], encoding="utf-8"):
    members, said, *name = line.split(" ", 2)
    if said in ("ok", "FAILED"):
        table.setdefault(name[0].split(":")[0].strip(), {})[members] = said
        failed += said == "FAILED"
print(f"\n{'check':<56} {'one':>8} {'three':>8}")
for name, said in table.items():
    print(f"{name:<56} {said.get('1', '-'):>8} {said.get('3', '-'):>8}")
print(f"{sum(map(len, table.values())) - failed} checks passed, {failed} failed")
sys.exit(1 if failed else 0)
EOF
