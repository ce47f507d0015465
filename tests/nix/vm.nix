# The VM test's machine on the stand-in, and its script: that both can be evaluated.
let
  lib = import ./lib.nix;
  test = import ../../nixos/tests/plug-in.nix;
  o = lib.mkOption;
  t = lib.types;
  machine = import ./nixos.nix {
    module = test.nodes.machine;
    packages = drv: {
      callPackage = _: _: drv "immich-usb-backup";
      exfatprogs = drv "exfatprogs";
      postgresql = drv "postgresql";
    };
    extra.options = {
      specialisation = o { type = t.raw; default = { }; };
      system.switch.enable = o { type = t.bool; default = false; };
      virtualisation.qemu.options = o { type = t.listOf t.str; default = [ ]; };
    };
  };
in
{
  inherit (test) name testScript;
  inherit (machine.config.services.immich-usb-backup) settings;
  changed = machine.config.specialisation.changed.configuration;
}
