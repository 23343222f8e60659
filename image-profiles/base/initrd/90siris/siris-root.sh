# Puts the writable parts on the root that verity has opened at /sysroot:
#   /etc and /root   overlays on memory, sealed by siris-seal.service when provisioning is over
#   persisted ones   the directories of /usr/lib/siris/state, bound from the state partition
#   volatile ones    the same file's others, on memory
# and the machine's id into /etc. Only the state partition named by GRUB (a sibling of the slot on its disk) is used.
set -eu

new=/sysroot
state=
live=
for word in $(cat /proc/cmdline); do
    case $word in
    siris.state=*) state=${word#siris.state=} ;;
    siris.live) live=yes ;;
    esac
done
if [ "$live" ]; then
    # The installer, run from memory: nothing of this boot lasts, and no disk is looked at.
    mount -t tmpfs -o mode=0755,nosuid,nodev,size=25% siris "$new/state"
else
    [ -n "$state" ] || { echo "siris: the kernel command line names no state partition (siris.state=)"; exit 1; }
    device=/dev/disk/by-partuuid/$state
    udevadm wait --timeout=120 "$device" || { echo "siris: no disk has the state partition $state"; exit 1; }

    # 0: clean, 1: mended. Anything else is beyond what may be done unattended.
    code=0
    fsck.ext4 -p "$device" || code=$?
    [ "$code" -le 1 ] || { echo "siris: the state partition needs a person (fsck.ext4: $code)"; exit 1; }
    mount -t ext4 -o nosuid,nodev,noatime,errors=remount-ro "$device" "$new/state"
fi

memory=/run/siris/memory
mkdir -p "$memory"
mount -t tmpfs -o mode=0755,nosuid,nodev,size=25% siris "$memory"
for dir in etc root; do
    mkdir -p "$memory/$dir.upper" "$memory/$dir.work"
    chmod "$([ "$dir" = root ] && echo 0700 || echo 0755)" "$memory/$dir.upper"
    mount -t overlay -o "lowerdir=$new/$dir,upperdir=$memory/$dir.upper,workdir=$memory/$dir.work" siris "$new/$dir"
done

# One line each: `persist DIR` or `volatile DIR`.
while read -r kind dir; do
    case $kind in
    persist)
        kept=$new/state/persist$dir
        if [ ! -d "$kept" ]; then
            # Made whole under another name first: a power cut leaves no half-filled directory.
            mkdir -p "${kept%/*}"
            rm -rf "$kept.new"
            cp -a "$new$dir" "$kept.new"
            sync -f "$kept.new"
            mv "$kept.new" "$kept"
        fi
        mount --bind "$kept" "$new$dir"
        ;;
    volatile)
        mkdir -p "$memory/volatile${dir%/*}"
        cp -a "$new$dir" "$memory/volatile$dir"
        mount --bind "$memory/volatile$dir" "$new$dir"
        ;;
    esac
done < "$new/usr/lib/siris/state"

# The same id at each boot: DHCP leases and the journal depend on it.
id=$new/state/persist/var/lib/siris/machine-id
if [ ! -s "$id" ]; then
    mkdir -p "${id%/*}"
    tr -d - < /proc/sys/kernel/random/uuid > "$id.new"
    sync "$id.new"
    mv "$id.new" "$id"
fi
cat "$id" > "$new/etc/machine-id"
