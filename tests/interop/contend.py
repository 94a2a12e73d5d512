"""kazoo's side of a lock and an election that handles of this crate want, too: see contention.rs.

contend.py HOSTS lock PATH COUNT ROUNDS   adds 1 to the node COUNT, ROUNDS times, under the lock PATH
contend.py HOSTS elect PATH UNTIL         stands for election once, and leads until UNTIL is there
"""
import sys
import threading

from kazoo.client import KazooClient


def main():
    hosts, what, path = sys.argv[1:4]
    zk = KazooClient(hosts, timeout=10)
    zk.start(30)
    if what == "lock":
        count, rounds = sys.argv[4], int(sys.argv[5])
        for _ in range(rounds):
            with zk.Lock(path, "kazoo", extra_lock_patterns=("-lock-",)):
                zk.sync(count)
                data, stat = zk.get(count)
                zk.set(count, b"%d" % (int(data) + 1), version=stat.version)
    else:
        until = sys.argv[4]

        def lead():
            over = threading.Event()
            zk.DataWatch(until, lambda data, stat: stat and over.set())
            assert over.wait(30)

        zk.Election(path, "kazoo").run(lead)
    zk.stop()


main()
