/* Apache's C client against running servers: client HOSTS. Prints `ok NAME` or `FAILED NAME: code`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

static int failures;
static volatile int changed;
static volatile int expired;

static void check(const char *name, int holds, int code) {
    if (holds) {
        printf("ok C client %s\n", name);
    } else {
        printf("FAILED C client %s: %d %s\n", name, code, zerror(code));
        failures++;
    }
    fflush(stdout);
}

static void watch(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh;
    (void)path;
    (void)context;
    if (type == ZOO_CHANGED_EVENT) changed++;
    if (type == ZOO_SESSION_EVENT && state == ZOO_EXPIRED_SESSION_STATE) expired = 1;
}

static zhandle_t *dial(const char *hosts, const clientid_t *session) {
    zhandle_t *zh = zookeeper_init(hosts, watch, 6000, session, NULL, 0);
    for (int tries = 0; zh && zoo_state(zh) != ZOO_CONNECTED_STATE && !expired && tries < 400; tries++) {
        usleep(25000);
    }
    return zh;
}

static volatile int answered, answer;

/* Of an identity, and of a sync. */
static void proved(int rc, const void *data) {
    (void)data;
    answer = rc;
    answered = 1;
}

static void synced(int rc, const char *path, const void *data) {
    (void)path;
    proved(rc, data);
}

static int eventually(volatile int *what) {
    for (int tries = 0; !*what && tries < 400; tries++) usleep(25000);
    return *what;
}

/* A process that ends without a word leaves its session behind. */
static clientid_t leave_a_session(const char *hosts) {
    int ends[2], status;
    clientid_t left = {0};
    if (pipe(ends)) return left;
    pid_t child = fork();
    if (child == 0) {
        char path[64];
        zhandle_t *zh = dial(hosts, NULL);
        zoo_create(zh, "/left", NULL, -1, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, path, sizeof path);
        _exit(write(ends[1], zoo_client_id(zh), sizeof left) != sizeof left);
    }
    if (read(ends[0], &left, sizeof left) != sizeof left || waitpid(child, &status, 0) != child) {
        memset(&left, 0, sizeof left);
    }
    return left;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    zoo_set_debug_level(0);
    char path[256], buffer[4096];
    struct Stat stat;
    struct String_vector names;
    struct ACL_vector acl;
    int rc, length;

    clientid_t left = leave_a_session(argv[1]);
    zhandle_t *zh = dial(argv[1], NULL), *other = dial(argv[1], NULL);
    check("opens a session", zh && zoo_state(zh) == ZOO_CONNECTED_STATE, zh ? zoo_state(zh) : 0);
    rc = zoo_create(zh, "/c", "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path);
    check("creates", rc == ZOK && !strcmp(path, "/c"), rc);
    rc = zoo_create(zh, "/c", "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path);
    check("is told that a node exists", rc == ZNODEEXISTS, rc);
    rc = zoo_create2(zh, "/c/n-", NULL, -1, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, path, sizeof path, &stat);
    check("creates in sequence", rc == ZOK && !strcmp(path, "/c/n-0000000000") && stat.czxid > 0, rc);
    rc = zoo_set2(zh, "/c", "new", 3, 0, &stat);
    check("sets at a version", rc == ZOK && stat.version == 1, rc);
    rc = zoo_set(zh, "/c", "old", 3, 0);
    check("is told of another version", rc == ZBADVERSION, rc);

    rc = zoo_async(other, "/c", synced, NULL);
    check("waits for the leader", rc == ZOK && eventually(&answered) && answer == ZOK, answer);
    answered = 0;
    length = sizeof buffer;
    rc = zoo_wget(other, "/c", watch, NULL, buffer, &length, &stat);
    check("reads and watches", rc == ZOK && length == 3 && !memcmp(buffer, "new", 3), rc);
    zoo_set(zh, "/c", "more", 4, -1);
    check("is told of a change", eventually(&changed), changed);
    rc = zoo_get_children2(zh, "/c", 0, &names, &stat);
    check("lists children", rc == ZOK && names.count == 1 && stat.numChildren == 1, rc);

    zoo_op_t ops[3];
    zoo_op_result_t results[3];
    zoo_create_op_init(&ops[0], "/c/m", "m", 1, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path);
    zoo_check_op_init(&ops[1], "/c", 2);
    zoo_delete_op_init(&ops[2], "/c/n-0000000000", -1);
    rc = zoo_multi(zh, 3, ops, results);
    check("does several things at once", rc == ZOK && results[2].err == ZOK, rc);
    zoo_check_op_init(&ops[1], "/c", 9);
    zoo_delete_op_init(&ops[0], "/c/m", -1);
    rc = zoo_multi(zh, 2, ops, results);
    check("does all or nothing", rc == ZBADVERSION && zoo_exists(zh, "/c/m", 0, NULL) == ZOK, rc);

    rc = zoo_add_auth(zh, "digest", "ann:secret", 10, proved, NULL);
    check("proves who it is", rc == ZOK && eventually(&answered) && answer == ZOK, answer);
    rc = zoo_create(zh, "/c/hers", "h", 1, &ZOO_CREATOR_ALL_ACL, 0, path, sizeof path);
    check("creates for itself", rc == ZOK, rc);
    rc = zoo_get_acl(zh, "/c/hers", &acl, &stat);
    check("reads rights", rc == ZOK && acl.count == 1 && !strcmp(acl.data[0].id.scheme, "digest"), rc);
    length = sizeof buffer;
    rc = zoo_get(other, "/c/hers", 0, buffer, &length, &stat);
    check("is kept from what is another's", rc == ZNOAUTH || rc == ZNONODE, rc);

    rc = zoo_create(zh, "/c/mine", NULL, -1, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, path, sizeof path);
    check("creates for its session", rc == ZOK, rc);
    rc = zoo_create(zh, "/c/mine/x", NULL, -1, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path);
    check("makes no child of such a node", rc == ZNOCHILDRENFOREPHEMERALS, rc);
    zookeeper_close(zh);
    zoo_async(other, "/c", synced, NULL);
    rc = zoo_exists(other, "/c/mine", 0, NULL);
    check("leaves nothing of a session that it closed", rc == ZNONODE, rc);

    zhandle_t *again = dial(argv[1], &left);
    check("takes a session over by its password",
        zoo_state(again) == ZOO_CONNECTED_STATE && zoo_client_id(again)->client_id == left.client_id,
        zoo_state(again));
    rc = zoo_exists(again, "/left", 0, &stat);
    check("finds what is its session's", rc == ZOK && stat.ephemeralOwner == left.client_id, rc);
    zookeeper_close(again);
    again = dial(argv[1], &left);
    check("is told that a session is over", eventually(&expired), zoo_state(again));
    zookeeper_close(again);
    zookeeper_close(other);
    return failures ? 1 : 0;
}
