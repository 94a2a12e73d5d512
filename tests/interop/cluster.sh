#!/usr/bin/env bash
# Members of examples/zookeeper_server on the loopback, each with its data below INTEROP_DIR.
#   cluster.sh start N     starts N members and waits until they serve
#   cluster.sh begin I     starts member I again
#   cluster.sh kill I      ends member I at once (SIGKILL)
#   cluster.sh stop        ends all (SIGTERM), and removes their data
#   cluster.sh hosts       says where they serve
# Only processes that it started are ended, by their ids.
set -euo pipefail
: "${INTEROP_DIR:?a folder of this run}" "${INTEROP_SERVER:?the server}"
port=${INTEROP_PORT:-25300}

client() { echo "127.0.0.1:$((port + $1))"; }
members() { cat "$INTEROP_DIR/members"; }

begin() {
    local id=$1 peers="" other
    local arguments=(--id "$id" --client "$(client "$id")" --data "$INTEROP_DIR/data-$id")
    if [ "$(members)" -gt 1 ]; then
        for other in $(seq "$(members)"); do
            peers+="${peers:+,}$other=127.0.0.1:$((port + 50 + other))"
        done
        arguments+=(--peer "127.0.0.1:$((port + 50 + id))" --peers "$peers")
    fi
    # user super, password test
    arguments+=(--super-digest "super:D/InIHSb7yEEbrWz8b9l71RjZJU=")
    "$INTEROP_SERVER" "${arguments[@]}" >>"$INTEROP_DIR/log-$id" 2>&1 </dev/null &
    echo $! >"$INTEROP_DIR/pid-$id"
    # It is ready within 2 s.
    for _ in $(seq 40); do
        (exec 3<>"/dev/tcp/127.0.0.1/$((port + id))") 2>/dev/null && return
        sleep 0.05
    done
    echo "member $id does not listen after 2 s: see $INTEROP_DIR/log-$id" >&2
    return 1
}

# Whether a process runs; one that has ended may wait for whoever has adopted it.
runs() { kill -0 "$1" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }

finish() {
    local file=$INTEROP_DIR/pid-$1 pid
    [ -f "$file" ] || return 0
    pid=$(cat "$file")
    kill "-$2" "$pid" 2>/dev/null || true
    for _ in $(seq 100); do
        runs "$pid" || break
        sleep 0.05
    done
    rm "$file"
}

case ${1:-} in
start)
    mkdir -p "$INTEROP_DIR"
    echo "$2" >"$INTEROP_DIR/members"
    for id in $(seq "$2"); do begin "$id"; done
    ;;
begin) [ -f "$INTEROP_DIR/pid-$2" ] || begin "$2" ;;
kill) finish "$2" KILL ;;
stop)
    for id in $(seq "$(members)"); do finish "$id" TERM; done
    rm -r "$INTEROP_DIR"/data-*
    ;;
hosts) for id in $(seq "$(members)"); do client "$id"; done | paste -sd, ;;
*) sed -n '2,9p' "$0" && exit 2 ;;
esac
