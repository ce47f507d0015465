# package.nix and the flake with functions of nixpkgs that hand back what they were given, for test_nix.py.
let
  lib = import ./lib.nix // {
    fileset.unions = files: map toString files;
    fileset.toSource = { root, fileset }: fileset;
    platforms.linux = "linux";
  };
  named = names: lib.genAttrs names (name: name);
  python3Packages = named [ "hatchling" "dbus-next" "pydantic" "pyudev" "sdnotify" "structlog" "apprise" ] // {
    buildPythonApplication = arguments: arguments;
    python.sitePackages = "lib/python3/site-packages";
  };
  package = more: import ../../package.nix (named [ "coreutils" "exfatprogs" "rsync" "systemd" "util-linux" ] // {
    inherit lib python3Packages;
  } // more);
  systems = [ "x86_64-linux" "aarch64-linux" ];
  flake = (import ../../flake.nix).outputs {
    self = flake;
    nixpkgs = {
      inherit lib;
      legacyPackages = lib.genAttrs systems (system: {
        callPackage = file: _: file;
        stdenv.hostPlatform = { inherit system; };
        testers.runNixOSTest = file: file;
      });
    };
  };
in
{
  plain = package { };
  push = (package { withPush = true; }).dependencies;
  module = toString flake.nixosModules.default;
  packages = lib.mapAttrs (_: one: toString one.default) flake.packages;
  checks = lib.mapAttrs (_: one: lib.mapAttrs (_: file: toString file) one) flake.checks;
}
