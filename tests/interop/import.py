"""A tree to be imported, and what must be there afterwards.

import.py fill HOST:PORT         makes a tree of all kinds of nodes; an ephemeral one lives on for 60 s
import.py change HOST:PORT       changes some of it
import.py compare FROM TO        prints `ok NAME` or `FAILED NAME: why` for what is kept
"""
import sys

from kazoo.client import KazooClient
from kazoo.security import READ_ACL_UNSAFE, make_digest_acl

BUSY, WIDE = "/busy", 3000


def client(hosts):
    zk = KazooClient(hosts, timeout=10, auth_data=[("digest", "super:test")])
    zk.start(30)
    return zk


def fill(zk):
    requests = [zk.create_async("/wide")]
    requests += [zk.create_async("/wide/%05d" % n, b"%d" % n * 30) for n in range(WIDE)]
    for it in requests:
        it.get(30)
    zk.create("/deep" + "/d" * 100, b"bottom", makepath=True)
    zk.create("/large", b"\x00\xff" * 500_000)
    zk.create("/hers", b"1", acl=[make_digest_acl("ann", "secret", all=True),
                                  READ_ACL_UNSAFE[0]])
    zk.create("/hers/below", b"2", acl=[make_digest_acl("ann", "secret", read=True)])
    zk.set_acls("/hers/below", [make_digest_acl("bob", "secret", all=True)])
    for number in range(150):
        zk.set_async("/deep", b"version %d" % number)
    zk.create(BUSY)
    for number in range(40):
        path = zk.create(BUSY + "/n-", b"", sequence=True)
        if number % 4:
            zk.delete(path)
    zk.create("/umlaut-\u00e9", b"")
    zk.create("/mine", b"", ephemeral=True)


def change(zk):
    zk.set("/deep/d", b"changed")
    zk.create("/later", b"new")
    zk.set_acls("/wide", [make_digest_acl("ann", "secret", all=True)])


def walk(zk, path="/"):
    stat = zk.exists(path)
    if stat is None or stat.ephemeralOwner > 0:
        return
    yield path
    for name in zk.get_children(path):
        if (path, name) != ("/", "zookeeper"):
            yield from walk(zk, path.rstrip("/") + "/" + name)


def compare(source, target):
    failed = 0

    def check(name, holds, what=""):
        nonlocal failed
        print(f"ok import {name}" if holds else f"FAILED import {name}: {what}")
        failed += not holds

    here, there = list(walk(source)), list(walk(target))
    check("keeps the nodes", sorted(here) == sorted(there), sorted(set(here) ^ set(there))[:5])
    here = [path for path in here if path in there]
    check("leaves ephemeral nodes", source.exists("/mine") and not target.exists("/mine"))
    # The wide ones are all alike.
    some = [path for path in here if not path.startswith("/wide/")] + ["/wide/00000", "/wide/02999"]
    pairs = [(path, source.get(path), target.get(path)) for path in some]
    check("keeps data", all(a[0] == b[0] for _, a, b in pairs))
    check("keeps versions", all(a[1].version == b[1].version for _, a, b in pairs),
          [path for path, a, b in pairs if a[1].version != b[1].version])
    acls = [(path, source.get_acls(path), target.get_acls(path)) for path in some]
    check("keeps rights", all(a[0] == b[0] for _, a, b in acls))
    check("keeps versions of rights", all(a[1].aversion == b[1].aversion for _, a, b in acls))
    following = [zk.create(BUSY + "/n-", sequence=True) for zk in (source, target)]
    check("goes on with sequences", following[0] == following[1], following)
    for zk in (source, target):
        zk.delete(following[0])
    return failed


def main():
    what, clients = sys.argv[1], [client(hosts) for hosts in sys.argv[2:]]
    if what == "compare":
        sys.exit(1 if compare(*clients) else 0)
    {"fill": fill, "change": change}[what](*clients)
    print("ready", flush=True)
    if what == "fill":
        # Its session lives as long as somebody reads this.
        sys.stdin.read()


main()
