# The module with some settings on a machine with or without services.immich: what it would set, for test_nix.py.
{ settings, immich ? null, more ? { } }:
let
  lib = import ./lib.nix;
  o = lib.mkOption;
  t = lib.types;
  # As far as our module looks at it: nixos/modules/services/web-apps/immich.nix.
  withImmich = {
    options.services.postgresql.package = o { type = t.raw; default = { type = "derivation"; outPath = "/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-postgresql"; }; };
    options.services.immich = {
      enable = lib.mkEnableOption "Immich";
      user = o { type = t.str; default = "immich"; };
      mediaLocation = o { type = t.path; default = "/var/lib/immich"; };
      settings = o { type = t.nullOr t.attrs; default = null; };
      database.enable = o { type = t.bool; default = true; };
      database.name = o { type = t.str; default = "immich"; };
      database.host = o { type = t.str; default = "/run/postgresql"; };
      database.user = o { type = t.str; default = "immich"; };
    };
    config.services.immich = immich;
  };
  machine = import ./nixos.nix {
    module = ../../nixos-module.nix;
    packages = drv: {
      callPackage = _: _: drv "immich-usb-backup";
      postgresql = drv "postgresql";
    };
    extra = {
      imports = [ { config = more; } ] ++ (if immich == null then [ ] else [ withImmich ]);
      config.services.immich-usb-backup = settings;
    };
  };
  c = machine.config;
  described = prefix: options:
    builtins.concatLists (lib.mapAttrsToList (name: option:
      let path = prefix ++ [ name ]; in
      if (option._type or "") != "option" then described path option
      else [{
        path = builtins.concatStringsSep "." path;
        type = option.type.name;
        description = option.description or "";
        default = option.defaultText.text or (if option ? default then builtins.toJSON (shown option.default) else "");
      }] ++ inside path option.type) options);
  shown = value: if builtins.isAttrs value && value ? outPath then "the package" else value;
  inside = path: type: if type ? options then described path type.options
    else if type ? element && type.element ? options then described (path ++ [ "<name>" ]) type.element.options else [ ];
in
{
  inherit (machine) units warnings;
  inherit (c.services.immich-usb-backup) settings;
  check = (c.environment.etc."immich-usb-backup/config.toml".source or { text = ""; }).text;
  etc = lib.mapAttrs (_: file: builtins.toString (if builtins.isAttrs file.source then file.source.name else file.source)) c.environment.etc;
  # NixOS links those that systemd.packages bring, and the build ends where one is named here once more.
  generators = builtins.attrNames c.systemd.generators;
  agent = c.systemd.user.services.immich-usb-backup-agent.wantedBy or [ ];
  users = builtins.attrNames c.users.users;
  admins = c.users.groups.immich-usb-backup-admins.members or [ ];
  polkit = c.security.polkit.extraConfig;
  on = [ c.services.udisks2.enable c.security.polkit.enable ] ++ map (fs: fs == "exfat") c.boot.supportedFilesystems;
  packages = map (p: p.name) (c.services.udev.packages ++ c.services.dbus.packages ++ c.systemd.packages ++ c.systemd.tmpfiles.packages);
  options = described [ ] machine.options.services.immich-usb-backup;
}
