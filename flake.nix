{
  description = "Plug a USB disk in, and your Immich library is on it: copied, unmounted, told.";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      each = make: lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: rec {
        immich-usb-backup = pkgs.callPackage ./package.nix { };
        default = immich-usb-backup;
      });

      nixosModules = rec {
        immich-usb-backup = ./nixos-module.nix;
        default = immich-usb-backup;
      };

      # nix flake check: builds the package, evaluates the module, and plugs a stick into a virtual machine.
      checks = each (pkgs: {
        package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        plug-in = pkgs.testers.runNixOSTest ./nixos/tests/plug-in.nix;
      });
    };
}
