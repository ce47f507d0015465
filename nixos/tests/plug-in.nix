# A server with Immich's folders, a USB stick that is plugged in, a backup, and the stick that may be pulled.
# Run it with: nix flake check, or: nix-build -E 'with import <nixpkgs> { }; testers.runNixOSTest ./nixos/tests/plug-in.nix'
{
  name = "immich-usb-backup-plug-in";

  nodes.machine =
    { pkgs, ... }:
    {
      imports = [ ../../nixos-module.nix ];
      services.immich-usb-backup = {
        enable = true;
        settings = {
          media_location = "/srv/immich";
          config_files = [ "/etc/hostname" ];
          disks.automounter_grace_seconds = 0;
          disks.reserve_megabytes = 10;
          database.warn_after_hours = 0;
        };
      };
      # What a rebuild does: the same machine with another setting.
      specialisation.changed.configuration.services.immich-usb-backup.settings.keep_deleted_days = 7;
      system.switch.enable = true;
      environment.systemPackages = [ pkgs.exfatprogs ];
      # A controller that sticks can be plugged into.
      virtualisation.qemu.options = [ "-device qemu-xhci,id=xhci" ];
    };

  testScript = ''
    import os

    stick = os.path.join(machine.state_dir, "stick.img")
    with open(stick, "wb") as image:
        image.truncate(256 * 1024 * 1024)


    def plug_in():
        machine.send_monitor_command(f"drive_add 0 id=stick,if=none,file={stick},format=raw")
        machine.send_monitor_command("device_add usb-storage,id=stick,drive=stick,bus=xhci.0")


    machine.wait_for_unit("immich-usb-backup.service")

    with subtest("a library and a marked stick"):
        # Else it would look at the stick between mkfs and mount.
        machine.succeed("systemctl stop immich-usb-backup.service")
        for folder in ("upload", "library", "profile", "backups"):
            machine.succeed(f"mkdir -p /srv/immich/{folder} && touch /srv/immich/{folder}/.immich")
        machine.succeed("mkdir -p /srv/immich/upload/u1/ab/cd && echo photo > /srv/immich/upload/u1/ab/cd/1.jpg")
        machine.succeed(
            "printf -- '-- PostgreSQL database dump\n-- PostgreSQL database dump complete\n' | gzip"
            " > /srv/immich/backups/immich-db-backup-20260101T020000-v2.5.0-pg14.19.sql.gz"
        )
        plug_in()
        machine.wait_until_succeeds("test -b /dev/sda")
        machine.succeed("mkfs.exfat -L BACKUP /dev/sda && mount /dev/sda /mnt && mkdir /mnt/immich-server-backups")
        machine.succeed("umount /mnt")
        machine.send_monitor_command("device_del stick")
        machine.wait_until_fails("test -b /dev/sda")

    with subtest("it is plugged in: the rule starts the service, which backs up and unmounts"):
        plug_in()
        machine.wait_until_succeeds("journalctl --unit=immich-usb-backup --output=cat | grep -q 'safe to unplug'")
        machine.fail("grep -q /dev/sda /proc/mounts")

    with subtest("the photo is on the stick"):
        machine.succeed("mount -o ro /dev/sda /mnt")
        machine.succeed("cmp /srv/immich/upload/u1/ab/cd/1.jpg /mnt/immich-server-backups/upload/u1/ab/cd/1.jpg")
        machine.succeed("umount /mnt")

    with subtest("a rebuild does not stop the service: it begins anew by itself, with what is new"):
        machine.succeed("/run/current-system/specialisation/changed/bin/switch-to-configuration test")
        machine.wait_until_succeeds("journalctl IMMICH_BACKUP_EVENT=begins-anew | grep -q .")
        machine.wait_for_unit("immich-usb-backup.service")
        machine.succeed("grep -q 'keep_deleted_days = 7' /etc/immich-usb-backup/config.toml")

    with subtest("the set-up is as it should be, as far as the machine has one"):
        said = machine.execute("immich-usb-backup doctor")[1]
        for wrong in ("is missing", "is not installed", "is not enabled", "apt-get"):
            assert wrong not in said, said
  '';
}
