#!/usr/bin/env bash
# zkCli.sh of Debian's package against running servers: cli.sh HOSTS.
set -euo pipefail
cli=${ZKCLI:-/usr/share/zookeeper/bin/zkCli.sh}
said=$("$cli" -server "$1" 2>&1 <<'COMMANDS' || true
create /cli one
create -s /cli/n- two
create -e /cli/mine mine
create -c /cli/container
create -t 600000 /cli/ttl
set -v 0 /cli three
set -v 0 /cli four
get -s /cli
ls -R /cli
setAcl /cli/n-0000000000 world:anyone:r
getAcl /cli/n-0000000000
getEphemerals
getAllChildrenNumber /cli
sync /cli
delete /cli
addWatch /cli
delete /cli/ttl
deleteall /cli
ls /
quit
COMMANDS
)
client=zkCli
. "$(dirname "$0")/check.sh"
check "creates" '^Created /cli$'
check "creates in sequence" '^Created /cli/n-0000000000$'
check "creates containers" '^Created /cli/container$'
check "creates with a time to live" '^Created /cli/ttl$'
check "is told of another version" 'version No is not valid : /cli'
check "reads data and stat" '^three$'
check "shows the version" '^dataVersion = 1$'
check "lists a subtree" '^/cli/n-0000000000$'
check "sets and reads rights" "^'world,'anyone"
check "lists ephemeral nodes" '/cli/mine'
check "counts a subtree" '^4$'
check "waits for the leader" '^Sync is OK'
check "removes no node with children" 'Node not empty: /cli'
check "watches for good" 'type:NodeDeleted path:/cli/ttl|NodeDeleted.*path:/cli/ttl'
check "removes a subtree" 'type:NodeDeleted path:/cli$'
exit "$failed"
