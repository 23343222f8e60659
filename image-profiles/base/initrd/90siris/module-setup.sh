#!/bin/bash
# The dracut module of SIRIS: puts the writable parts on a verified, read-only root, and never opens a shell.

check() {
    return 0
}

depends() {
    echo systemd
}

installkernel() {
    # Root, verity and state; and the watchdogs, so that a boot that hangs here still comes to an end: Intel's chipsets
    # show theirs through the LPC bridge, newer ones through the SMBus, and a server's BMC has one.
    hostonly='' instmods erofs ext4 overlay dm_verity sha256 =drivers/watchdog lpc_ich i2c_i801 ipmi_watchdog ipmi_si
}

install() {
    inst_multiple mount mkdir cp mv cat rm chmod cut tr head od fsck.ext4 udevadm sync blockdev
    inst_simple "$moddir/siris-root.sh" /usr/lib/siris/root.sh
    inst_simple "$moddir/siris-root.service" /usr/lib/systemd/system/siris-root.service
    inst_simple "$moddir/emergency.service" /etc/systemd/system/emergency.service
    inst_simple "$moddir/rescue.service" /etc/systemd/system/rescue.service
    inst_simple "$moddir/system.conf" /etc/systemd/system.conf.d/50-siris.conf
    # No device names this one; without a BMC it does nothing.
    mkdir -p "$initdir/etc/modules-load.d"
    echo ipmi_watchdog > "$initdir/etc/modules-load.d/siris-watchdog.conf"
    inst_simple "$moddir/initrd.conf" /etc/systemd/system/initrd.target.d/50-siris.conf
    inst_simple "$moddir/initrd.conf" /etc/systemd/system/initrd-root-fs.target.d/50-siris.conf
    mkdir -p "$initdir/etc/systemd/system/initrd-root-fs.target.requires"
    ln -sf /usr/lib/systemd/system/siris-root.service "$initdir/etc/systemd/system/initrd-root-fs.target.requires/siris-root.service"
}
