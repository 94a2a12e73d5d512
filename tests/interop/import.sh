#!/usr/bin/env bash
# examples/import from Debian's ZooKeeper into running members: import.sh HOSTS.
# The first import is cut off, the second goes on, and the third takes over what has changed since.
set -euo pipefail
cd "$(dirname "$0")"
: "${INTEROP_DIR:?a folder of this run}" "${INTEROP_IMPORT:?the importer}" "${INTEROP_PYTHON:?}"
port=$((${INTEROP_PORT:-25300} + 90))
folder=$INTEROP_DIR/zookeeper
mkdir -p "$folder"
cat >"$folder/zoo.cfg" <<CONFIG
tickTime=2000
dataDir=$folder
clientPort=$port
clientPortAddress=127.0.0.1
admin.enableServer=false
CONFIG
jars=$(printf '%s:' /usr/share/java/{zookeeper,slf4j-simple,netty-{all,codec,resolver,transport-native-unix-common}}.jar)
# user super, password test
java -Xmx384m -cp "$jars" -Dfile.encoding=UTF-8 -Djava.net.preferIPv4Stack=true \
    -Dzookeeper.DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU= \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$folder/zoo.cfg" \
    >"$folder/log" 2>&1 </dev/null &
zookeeper=$!
mkfifo "$folder/open"
"$INTEROP_PYTHON" import.py fill "127.0.0.1:$port" <"$folder/open" >"$folder/filled" &
filler=$!
exec 9>"$folder/open"
trap 'exec 9>&-; kill "$filler" "$zookeeper" 2>/dev/null || true; wait "$zookeeper" || true' EXIT
for _ in $(seq 600); do
    grep -q ready "$folder/filled" && break
    sleep 0.1
done
grep -q ready "$folder/filled" || { echo "FAILED import: ZooKeeper was not filled"; exit 1; }

client=import
. ./check.sh
import() {
    said=$(timeout "$1" "$INTEROP_IMPORT" --from "127.0.0.1:$port" --to "$2" --window 64 \
        --from-auth digest:super:test --to-auth digest:super:test 2>&1) || said+=" (status $?)"
}

import 0.4 "$1"
import 120 "$1"
check "goes on after it was cut off" 'the trees are equal$'
check "tells of its progress" 'copied [0-9]+ nodes of [0-9]+'
"$INTEROP_PYTHON" import.py compare "127.0.0.1:$port" "$1" || failed=1
"$INTEROP_PYTHON" import.py change "127.0.0.1:$port" >/dev/null
import 120 "$1"
check "takes over what has changed" 'copied: made +1$'
check "changes what differs" 'copied: changed +2$'
check "leaves what is equal" 'the trees are equal$'
"$INTEROP_PYTHON" - "$1" <<'EOF'
import sys
from kazoo.client import KazooClient
zk = KazooClient(sys.argv[1])
zk.start()
zk.create("/only-here")
zk.stop()
EOF
import 120 "$1"
check "says what is in the target only" '/only-here: it is in the target only'
check "fails if the trees differ" '\(status 1\)'
exit "$failed"
