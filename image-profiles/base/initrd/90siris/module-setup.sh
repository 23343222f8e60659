#!/bin/bash
# The dracut module of SIRIS: puts the writable parts on a verified, read-only root, and never opens a shell.

check() {
    return 0
}

depends() {
    echo systemd
}

installkernel() {
    # Root, verity and state; and the watchdogs, so that a boot that hangs here still comes to an end.
    hostonly='' instmods erofs ext4 overlay dm_verity sha256 =drivers/watchdog ipmi_watchdog ipmi_si
}

install() {
    inst_multiple mount mkdir cp mv cat rm chmod cut tr head od fsck.ext4 udevadm sync blockdev
    inst_simple "$moddir/siris-root.sh" /usr/lib/siris/root.sh
    inst_simple "$moddir/siris-root.service" /usr/lib/systemd/system/siris-root.service
    inst_simple "$moddir/emergency.service" /etc/systemd/system/emergency.service
    inst_simple "$moddir/rescue.service" /etc/systemd/system/rescue.service
    inst_simple "$moddir/system.conf" /etc/systemd/system.conf.d/50-siris.conf
    inst_simple "$moddir/initrd.conf" /etc/systemd/system/initrd.target.d/50-siris.conf
    inst_simple "$moddir/initrd.conf" /etc/systemd/system/initrd-root-fs.target.d/50-siris.conf
    mkdir -p "$initdir/etc/systemd/system/initrd-root-fs.target.requires"
    ln -sf /usr/lib/systemd/system/siris-root.service "$initdir/etc/systemd/system/initrd-root-fs.target.requires/siris-root.service"
}
