#!/bin/bash
# The dracut module of the live initrd: finds the installer's medium, loads the OS from it into memory, and closes
# every disk before it does so.

check() {
    return 0
}

depends() {
    echo systemd dm
}

installkernel() {
    # What a medium can hang on (a BMC's virtual CD is a USB one), and what the root needs. Drivers of storage
    # controllers come later, from the root itself: the fewer disks are there now, the sooner the medium is read.
    hostonly='' instmods xhci_pci xhci_plat_hcd ehci_pci uhci_hcd ohci_pci usb_storage uas sr_mod cdrom sd_mod isofs \
        ahci ata_piix ata_generic virtio_pci virtio_blk virtio_scsi loop dm_verity sha256 erofs overlay
}

install() {
    inst_multiple mount mkdir cp mv cat rm chmod tr sync sleep blockdev veritysetup udevadm
    inst_simple /siris/live/siris-live /usr/libexec/siris/siris-live
    inst_libdir_file 'libgcc_s.so*'
    for key in /siris/keys/*; do
        inst_simple "$key" "/usr/lib/siris/keys/${key##*/}"
    done
    inst_simple /siris/fence.rules /usr/lib/udev/rules.d/01-siris-fence.rules
    inst_simple /siris/initrds/90siris/siris-root.sh /usr/lib/siris/root.sh
    inst_simple /siris/initrds/90siris/siris-root.service /usr/lib/systemd/system/siris-root.service
    inst_simple "$moddir/siris-live.service" /usr/lib/systemd/system/siris-live.service
    inst_simple "$moddir/system.conf" /etc/systemd/system.conf.d/50-siris.conf
    for unit in emergency rescue; do
        inst_simple "$moddir/failed.service" "/etc/systemd/system/$unit.service"
    done
    for link in initrd-root-fs.target.requires/siris-root.service initrd-root-device.target.requires/siris-live.service; do
        mkdir -p "$initdir/etc/systemd/system/${link%/*}"
        ln -sf "/usr/lib/systemd/system/${link##*/}" "$initdir/etc/systemd/system/$link"
    done
}
