#!/bin/sh
# Tells the agent that something about a pool or a dataset may have changed, so that it need not poll.

# What happens to disks and pools is told in the journal; what is done to datasets is in the pools' own history.
[ "${ZEVENT_SUBCLASS}" = history_event ] || /usr/lib/zfs-linux/zed.d/all-syslog.sh

look=RefreshPools
case "${ZEVENT_SUBCLASS}" in
    history_event)
        # Every change has one; those of holds and bookmarks change nothing the agent shows.
        case "${ZEVENT_HISTORY_INTERNAL_NAME}" in
            snapshot | destroy | create | clone | rename | promote | rollback | receive | "finish receiving" | set | inherit) ;;
            *) exit 0 ;;
        esac
        look=RefreshDatasets ;;
    # Come with every transaction or configuration write, and change nothing the agent shows.
    config_sync | config_cache_write | trim_* | initialize_* | delay | deadman) exit 0 ;;
esac

# Thousands of changes in a row are told of once a second: one waits and tells of all that come meanwhile. Whoever comes in the
# second in which that one began to wait need not even ask for the lock, which would be a program of its own.
lock="/run/lock/siris-${look}"
read -r now _ </proc/uptime
now="${now%.*}"
[ -r "$lock" ] && read -r since <"$lock" && [ "$since" = "$now" ] && exit 0
exec 9>>"$lock"
flock --nonblock 9 || exit 0
echo "$now" >"$lock"
sleep 1

# One tells and one waits, however long the agent takes: zed runs no more than a few of these at once.
exec 8>>"${lock}-told"
flock 8
exec 9>&-

# Who leaves the bus before the agent has asked who that was, is nobody, and what it came to tell is lost: on a box that has a lot
# to do that can take a while.
busctl --quiet --timeout=30 --auto-start=no call \
    org.siris.Agent1 /org/siris/Agent1 org.siris.Agent1.Manager "$look" 'a{sv}' 0 >/dev/null 2>&1
exit 0
