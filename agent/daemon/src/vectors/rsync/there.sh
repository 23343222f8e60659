# What runs on a machine without an agent, to keep a copy of a recovery point at PATH. Arguments: what to do, PATH, the
# vector, and what that needs beside. POSIX shell, with GNU's coreutils and findutils.
#
# PATH is a whole copy at any time. The next one grows in PATH.partial, and takes its place when it is whole; where the two
# cannot be exchanged at once, PATH.old is the copy before for a moment. A file in each says whose it is, of which point,
# and, as its last line, that the copy is whole. Nothing without that file is written to, moved or removed.
# Refusals are a line on standard error that begins with "siris-refused: ", a code, and what it is about.
set -u
umask 077
export LC_ALL=C
todo=$1 path=$2 vector=$3
shift 3
mark=.siris-vector
next=$path.partial
old=$path.old
above=${path%/*}

refuse() { printf 'siris-refused: %s %s\n' "$1" "${2:-}" >&2; exit 77; }
is_there() { [ -e "$1" ] || [ -L "$1" ]; }
is_dir() { [ -d "$1" ] && [ ! -L "$1" ]; }
# The line of a mark that begins with a word, without it; the first one where there are several.
line() { [ -f "$1/$mark" ] && [ ! -L "$1/$mark" ] && sed -n "s/^$2 //p" "$1/$mark" | head -n 1; }
is_ours() { is_dir "$1" && [ "$(line "$1" siris-vector)" = "$vector" ]; }
is_whole() { is_ours "$1" && grep -qx whole "$1/$mark"; }
turn() { t=$(line "$1" turn); case $t in ''|*[!0-9]*) echo 0;; *) echo "$t";; esac; }
# Where this sync knows no single file system, it is asked for all; one that fails is a disk that does.
kept() { if sync --help 2>/dev/null | grep -q -e --file-system; then sync -f -- "$1" || refuse copy-not-kept "$1"; else sync; fi; }

# The mark goes last: until then it says whose the rest is.
remove() {
    is_ours "$1" || return 0
    find "$1" -mindepth 1 -maxdepth 1 ! -name "$mark" -exec rm -rf --one-file-system -- {} + || refuse copy-not-removed "$1"
    rm -f -- "$1/$mark" && rmdir -- "$1" || refuse copy-not-removed "$1"
}

# Nothing but ours, or nothing at all, which an empty directory is as good as.
must_be_ours() {
    is_there "$1" || return 0
    is_ours "$1" && return 0
    other=$(line "$1" siris-vector)
    [ -z "$other" ] || refuse path-of-another "$1, by vector $other"
    is_dir "$1" && found=$(ls -A -- "$1") && [ -z "$found" ] || refuse path-not-ours "$1"
}

# Removes what is empty; what only seemed so stays, and is not ours.
make_room() { ! is_there "$1" || is_ours "$1" || rmdir -- "$1" 2>/dev/null || refuse path-not-ours "$1"; }

# Alone with a copy until the end. Waits for an rsync that nobody is at the other end of any more.
lock() {
    if command -v flock >/dev/null && [ -f "$1/$mark" ]; then
        eval "exec $2<\"\$1/\$mark\"" && flock -w 30 "$2" || refuse copy-busy "$1"
    fi
}

# Brings what a run that was cut has left into order, whatever it was about.
settle() {
    [ -d "${above:-/}" ] || refuse parent-missing "${above:-/}"
    up=$above
    while [ -n "$up" ]; do
        ! is_there "$up/$mark" || refuse inside-a-copy "$up"
        up=${up%/*}
    done
    # As a mark that was being written has left it.
    ! is_dir "$next" || [ "$(ls -A -- "$next")" != "$mark.new" ] || rm -f -- "$next/$mark.new"
    must_be_ours "$next"
    must_be_ours "$old"
    must_be_ours "$path"
    lock "$next" 8
    lock "$path" 9
    if is_whole "$next"; then
        if ! is_ours "$path"; then
            make_room "$path"
            mv -T -- "$next" "$path" || refuse copy-not-moved "$next"
        elif [ "$(turn "$next")" -gt "$(turn "$path")" ]; then
            if ! mv --exchange -T -- "$next" "$path" 2>/dev/null; then
                remove "$old"
                make_room "$old"
                mv -T -- "$path" "$old" && mv -T -- "$next" "$path" || refuse copy-not-moved "$path"
            fi
        fi
        kept "$path"
        remove "$next"
    elif ! is_ours "$path" && is_whole "$old"; then
        make_room "$path"
        mv -T -- "$old" "$path" || refuse copy-not-moved "$old"
    fi
    ! is_ours "$path" || remove "$old"
}

say() { ! is_ours "$2" || printf '%s %s\n' "$1" "$(line "$2" point)"; }

case $todo in
# Says which point is there, and which is on its way.
look)
    settle
    say whole "$path"
    say partial "$next"
    ;;
# Has PATH.partial begin, or go on: of the point that is named.
begin)
    point=$1
    settle
    if is_ours "$next" && [ "$(line "$next" point)" != "$point" ]; then
        remove "$next"
    fi
    if is_ours "$next"; then
        # What was cut off in a file has the old end again, which need not come once more. Files that both copies share are
        # never written to.
        is_dir "$path" && command -v dd >/dev/null && cd -- "$next" && find . -xdev -type f -links 1 -newer "./$mark" -exec sh -c '
            whole=$0
            for file do
                [ -f "$whole/$file" ] && [ ! -L "$whole/$file" ] || continue
                have=$(stat -c %s -- "$file") && all=$(stat -c %s -- "$whole/$file") && [ "$have" -lt "$all" ] || continue
                dd if="$whole/$file" of="$file" bs=1M iflag=skip_bytes oflag=seek_bytes skip="$have" seek="$have" \
                    conv=notrunc,sparse 2>/dev/null
            done' "$path" {} +
        exit 0
    fi
    number=$(($(turn "$path") + 1))
    make_room "$next"
    mkdir -- "$next" || refuse copy-not-made "$next"
    printf 'siris-vector %s\nturn %s\npoint %s\n' "$vector" "$number" "$point" >"$next/$mark.new" && kept "$next" &&
        mv -T -- "$next/$mark.new" "$next/$mark" && kept "$next" || refuse copy-not-made "$next"
    ;;
# Has it take the place of PATH.
finish)
    point=$1
    [ "$(line "$next" point)" = "$point" ] && is_ours "$next" || refuse path-not-ours "$next"
    # Appended: the directory's time stays, and a mark that is cut is none.
    kept "$next"
    printf 'whole\n' >>"$next/$mark" && kept "$next" || refuse copy-not-kept "$next"
    settle
    [ "$(line "$path" point)" = "$point" ] || refuse copy-not-moved "$next"
    ;;
# Becomes rsync, in the copy on its way (fill) or in the whole one (compare), alone with it.
fill|compare)
    command -v rsync >/dev/null || refuse rsync-missing
    [ "$todo" = fill ] && dir=$next || dir=$path
    cd -- "$dir" 2>/dev/null && is_ours . || refuse path-not-ours "$dir"
    lock . 9
    umask 022
    exec rsync "$@"
    ;;
# Says whether there is anything in PATH, for who fetches from it.
source)
    cd -- "$path" 2>/dev/null || refuse source-missing "$path"
    found=$(ls -A) || refuse source-unreadable "$path"
    found=$(printf '%s\n' "$found" | grep -vxF -- "$mark")
    if [ -n "$found" ]; then echo full; else echo empty; fi
    ;;
# Becomes rsync in PATH, for who fetches from it. That nothing is unmounted between the look and rsync is seen to by being
# there.
fetch)
    command -v rsync >/dev/null || refuse rsync-missing
    may_be_empty=$1
    shift
    cd -- "$path" 2>/dev/null || refuse source-missing "$path"
    found=$(ls -A) || refuse source-unreadable "$path"
    found=$(printf '%s\n' "$found" | grep -vxF -- "$mark")
    [ -n "$found" ] || [ "$may_be_empty" = yes ] || refuse source-empty "$path"
    umask 022
    exec rsync "$@"
    ;;
*)
    exit 64
    ;;
esac
