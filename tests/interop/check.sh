# Sourced: whether `$said` has a line like that; a check that fails makes `$failed` 1.
failed=0
check() {
    if grep -qE -- "$2" <<<"$said"; then
        echo "ok $client $1"
    else
        echo "FAILED $client $1: nothing like \"$2\" in what it said"
        echo "$said" >&2
        failed=1
    fi
}
