"""kazoo's recipes against members of which one is killed and started again in the middle.

recipes.py HOSTS CLUSTER: each check is a generator; at its first `yield` a member is killed, at its
second one it is started again. Prints `ok NAME` or `FAILED NAME: why`, and fails if one did.
"""
import itertools
import logging
import subprocess
import sys
import threading
import time
import traceback

from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, NoAuthError, RolledBackError
from kazoo.recipe.party import ShallowParty
from kazoo.retry import KazooRetry
from kazoo.security import make_digest_acl

HOSTS, CLUSTER = sys.argv[1], sys.argv[2]
MEMBERS = HOSTS.count(",") + 1
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def client(**options):
    retry = {"max_tries": -1, "delay": 0.02, "max_delay": 0.3}
    zk = KazooClient(HOSTS, timeout=10, connection_retry=KazooRetry(**retry),
                     command_retry=KazooRetry(**retry), **options)
    zk.start(30)
    return zk


def eventually(what, within=20):
    until = time.monotonic() + within
    while not what():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.02)


def thread(function, *arguments):
    it = threading.Thread(target=function, args=arguments, daemon=True)
    it.start()
    return it


@check
def nodes(one, two, at):
    made = [one.create(at + "/n-", b"%d" % n, sequence=True) for n in range(3)]
    assert [int(path[-10:]) for path in made] == [0, 1, 2], made
    mine = one.create(at + "/mine", b"1", ephemeral=True)
    yield
    two.retry(two.sync, at)
    assert two.retry(two.get, mine)[1].ephemeralOwner == one.client_id[0]
    stat = two.retry(two.set, made[0], b"new", version=0)
    assert (stat.version, two.retry(two.get, made[0])[0]) == (1, b"new")
    yield
    try:
        two.retry(two.set, made[0], b"old", version=0)
        raise AssertionError("a version that is over")
    except BadVersionError:
        pass
    assert int(one.retry(one.create, at + "/n-", sequence=True)[-10:]) >= 3
    one.retry(one.delete, mine)
    assert two.retry(two.exists, mine) is None or two.sync(at) and two.exists(mine) is None


@check
def transactions(one, two, at):
    yield
    txn = one.transaction()
    txn.create(at + "/a", b"1")
    txn.set_data(at + "/a", b"2", version=0)
    txn.check(at + "/a", version=1)
    results = one.retry(txn.commit)
    assert results[0] == at + "/a" and results[1].version == 1 and results[2] is True, results
    txn = one.transaction()
    txn.delete(at + "/a")
    txn.create(at + "/b/c")
    results = one.retry(txn.commit)
    assert isinstance(results[0], RolledBackError), results
    yield
    two.retry(two.sync, at)
    assert two.retry(two.get, at + "/a")[0] == b"2"


@check
def rights(one, two, at):
    acl = [make_digest_acl("ann", "secret", all=True)]
    one.create(at + "/hers", b"1", acl=acl)
    yield
    two.retry(two.sync, at)
    try:
        two.retry(two.get, at + "/hers")
        raise AssertionError("she has not said who she is")
    except NoAuthError:
        pass
    two.retry(two.add_auth, "digest", "ann:secret")
    assert two.retry(two.get, at + "/hers")[0] == b"1"
    yield
    # An identity is proved again on each connection.
    assert two.retry(two.get_acls, at + "/hers")[0] == acl
    assert two.retry(two.set, at + "/hers", b"2").version == 1


@check
def data_watch(one, two, at):
    seen = []
    one.DataWatch(at, lambda data, stat: seen.append(data))
    two.retry(two.set, at, b"1")
    eventually(lambda: seen[-1:] == [b"1"])
    yield
    two.retry(two.set, at, b"2")
    eventually(lambda: seen[-1:] == [b"2"])
    yield
    two.retry(two.set, at, b"3")
    eventually(lambda: seen[-1:] == [b"3"])


@check
def children_watch(one, two, at):
    seen = []
    one.ChildrenWatch(at, lambda children: seen.append(sorted(children)))
    for names in (["a"], ["a", "b"], ["a", "b", "c"]):
        two.retry(two.ensure_path, at + "/" + names[-1])
        eventually(lambda: seen[-1] == names)
        if names[-1] != "c":
            yield


@check
def lock(one, two, at):
    held, order = [], []

    def contend(zk, name, rounds):
        for _ in range(rounds):
            with zk.Lock(at, name):
                held.append(name)
                assert len(held) == 1, held
                order.append(name)
                time.sleep(0.05)
                held.remove(name)

    threads = [thread(contend, zk, name, 12) for zk, name in ((one, "one"), (two, "two"))]
    time.sleep(0.2)
    yield
    yield
    for it in threads:
        it.join(30)
    assert sorted(order) == ["one"] * 12 + ["two"] * 12, order


@check
def read_and_write_locks(one, two, at):
    first, second = one.ReadLock(at, "one"), two.ReadLock(at, "two")
    assert first.acquire(timeout=10) and second.acquire(timeout=10)
    writer = two.WriteLock(at, "writer")
    yield
    assert not writer.acquire(blocking=False)
    first.release()
    second.release()
    yield
    assert writer.acquire(timeout=20)
    writer.release()


@check
def semaphore(one, two, at):
    first, second = one.Semaphore(at, max_leases=1), two.Semaphore(at, max_leases=1)
    assert first.acquire(timeout=10)
    yield
    assert not second.acquire(blocking=False)
    first.release()
    yield
    assert second.acquire(timeout=20)
    second.release()


@check
def election(one, two, at):
    leaders, resign = [], threading.Event()

    def lead(name):
        leaders.append(name)
        resign.wait(30)
        resign.clear()

    elections = [one.Election(at, "one"), two.Election(at, "two")]
    threads = [thread(elections[0].run, lead, "one")]
    eventually(lambda: leaders == ["one"])
    threads.append(thread(elections[1].run, lead, "two"))
    eventually(lambda: elections[0].contenders() == ["one", "two"])
    yield
    assert leaders == ["one"], "the leader leads on"
    yield
    resign.set()
    eventually(lambda: leaders == ["one", "two"])
    resign.set()
    for it in threads:
        it.join(20)


@check
def counter(one, two, at):
    first, second = one.Counter(at), two.Counter(at)
    for step in range(3):
        for _ in range(10):
            first += 1
            second -= 3
            second += 4
        if step < 2:
            yield
    assert first.value == 60, first.value


@check
def queue(one, two, at):
    put, got = one.Queue(at), two.Queue(at)
    for number in range(10):
        put.put(b"%d" % number)
    yield
    taken = [got.get() for _ in range(5)]
    yield
    taken += [got.get() for _ in range(5)]
    assert taken == [b"%d" % number for number in range(10)], taken


@check
def locking_queue(one, two, at):
    put, got = one.LockingQueue(at), two.LockingQueue(at)
    put.put_all([b"1", b"2", b"3"])
    yield
    for expected in (b"1", b"2", b"3"):
        assert got.get(20) == expected
        assert got.consume()
        if expected == b"1":
            yield


@check
def parties(one, two, at):
    first, second = one.Party(at + "/p", "one"), two.Party(at + "/p", "two")
    shallow = ShallowParty(one, at + "/s", "three")
    first.join()
    second.join()
    shallow.join()
    yield
    assert sorted(first) == ["one", "two"] and list(shallow) == ["three"]
    second.leave()
    yield
    two.retry(two.sync, at)
    eventually(lambda: list(first) == ["one"])
    first.leave()


@check
def barriers(one, two, at):
    barrier = one.Barrier(at + "/b")
    barrier.create()
    passed = []
    yield
    # kazoo's barrier does not wait on over a lost connection.
    waits = thread(lambda: passed.append(two.Barrier(at + "/b").wait(30)))
    time.sleep(0.2)
    assert not passed
    barrier.remove()
    waits.join(20)
    assert passed == [True]
    double = [zk.DoubleBarrier(at + "/d", 2) for zk in (one, two)]
    threads = [thread(it.enter) for it in double]
    for it in threads:
        it.join(20)
    yield
    threads = [thread(it.leave) for it in double]
    for it in threads:
        it.join(20)
    assert not any(it.is_alive() for it in threads)


def cluster(*arguments):
    subprocess.run([CLUSTER, *map(str, arguments)], check=True)


def run(function, number):
    victim, at = number % MEMBERS + 1, "/recipes/" + function.__name__
    one, two = client(), client()
    try:
        one.ensure_path(at)
        two.sync(at)
        for step, _ in enumerate(function(one, two, at)):
            cluster("kill" if step == 0 else "begin", victim)
            if MEMBERS == 1:
                cluster("begin", victim)
            for zk in (one, two):
                zk.retry(zk.sync, "/")
        return None
    except Exception as error:
        traceback.print_exc()
        return repr(error)
    finally:
        cluster("begin", victim)
        for zk in (one, two):
            zk.stop()
            zk.close()


def main():
    logging.disable(logging.WARNING)
    failed = 0
    for function, number in zip(CHECKS, itertools.count()):
        why = run(function, number)
        name = "kazoo " + function.__name__.replace("_", " ")
        print(f"ok {name}" if why is None else f"FAILED {name}: {why}", flush=True)
        failed += why is not None
    sys.exit(1 if failed else 0)


main()
