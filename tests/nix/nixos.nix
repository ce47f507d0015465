# The NixOS options a daemon's module sets, and how systemd units are rendered.
# Self-written; types are as strict as NixOS's where the module relies on them.
{ module, extra ? { }, packages ? (final: { }) }:
let
  lib = import ./lib.nix; t = lib.types; o = lib.mkOption;
  drv = name: { type = "derivation"; inherit name; outPath = "/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-${name}"; meta.mainProgram = name; };
  json = { type = t.attrsOf t.anything; generate = name: v: let d = drv name; in d // { value = v; outPath = builtins.deepSeq v d.outPath; }; };
  pkgs = lib.genAttrs [ "util-linux" "coreutils" "findutils" "gnugrep" "gnused" "systemd" "udisks2" "bash" ] drv // {
    inherit lib; formats = { toml = _: json; json = _: json; yaml = _: json; };
    writeText = name: text: drv name // { inherit text; };
    runCommand = name: _: text: drv name // { inherit text; };
  } // packages drv;
  val = v: if v == true then "true" else if v == false then "false" else toString v;
  atom = t.nullOr (t.oneOf [ t.bool t.int t.float t.str t.path t.package ]);
  sect = t.attrsOf (t.either (t.listOf atom) atom);
  strs = o { type = t.listOf t.str; default = [ ]; };
  unit = { wantedBy = strs; requiredBy = strs; after = strs; before = strs; wants = strs; requires = strs; bindsTo = strs; partOf = strs; conflicts = strs; upholds = strs; aliases = strs; onFailure = strs; documentation = strs;
    enable = o { type = t.bool; default = true; }; description = o { type = t.str; default = ""; }; unitConfig = o { type = sect; default = { }; };
    startLimitBurst = o { type = t.nullOr t.int; default = null; }; startLimitIntervalSec = o { type = t.nullOr t.int; default = null; };
    restartTriggers = o { type = t.listOf t.raw; default = [ ]; }; reloadTriggers = o { type = t.listOf t.raw; default = [ ]; }; reloadIfChanged = o { type = t.bool; default = false; }; };
  units = more: o { default = { }; type = t.attrsOf (t.submodule { options = unit // more; }); };
  lines = s: lib.concatStrings (lib.mapAttrsToList (k: v: lib.concatStrings (map (x: if x == null then "" else "${k}=${val x}\n") (if lib.isList v then v else [ v ]))) s);
  list = k: l: lib.optionalString (l != [ ]) "${k}=${toString l}\n";
  render = sections: u: "[Unit]\n" + lib.optionalString (u.description != "") "Description=${u.description}\n"
    + list "After" u.after + list "Before" u.before + list "Wants" u.wants + list "Requires" u.requires + list "BindsTo" u.bindsTo + list "PartOf" u.partOf + list "OnFailure" u.onFailure + list "Documentation" u.documentation
    + list "X-Restart-Triggers" u.restartTriggers + list "X-Reload-Triggers" u.reloadTriggers + lines u.unitConfig + sections u + lib.optionalString (u.wantedBy ++ u.requiredBy != [ ]) ("\n[Install]\n" + list "WantedBy" u.wantedBy + list "RequiredBy" u.requiredBy);
  path = u: lib.makeBinPath (u.path ++ [ pkgs.coreutils pkgs.findutils pkgs.gnugrep pkgs.gnused pkgs.systemd ]);
  svc = u: "\n[Service]\n" + lib.concatStrings (lib.mapAttrsToList (k: v: "Environment=\"${k}=${val v}\"\n") (u.environment // { PATH = path u; }))
    + (if u.reloadIfChanged then "X-ReloadIfChanged=true\n" else if !u.restartIfChanged then "X-RestartIfChanged=false\n" else "")
    + lib.optionalString (!u.stopIfChanged) "X-StopIfChanged=false\n" + lines u.serviceConfig;
  tmr = u: "\n[Timer]\n" + lines u.timerConfig;
  pth = u: "\n[Path]\n" + lines u.pathConfig;
  sck = u: "\n[Socket]\n" + lines u.socketConfig;
  e = lib.evalModules { specialArgs = { inherit pkgs; utils = { }; modulesPath = "/"; }; modules = [ module extra { options = {
    assertions = o { type = t.listOf t.raw; default = [ ]; }; warnings = strs;
    environment.systemPackages = o { type = t.listOf t.package; default = [ ]; };
    environment.etc = o { default = { }; type = t.attrsOf (t.submodule { options = { source = o { type = t.path; default = "/etc/x"; }; text = o { type = t.nullOr t.lines; default = null; }; mode = o { type = t.str; default = "symlink"; }; user = o { type = t.str; default = "root"; }; group = o { type = t.str; default = "root"; }; }; }); };
    services.udev.packages = o { type = t.listOf t.path; default = [ ]; }; services.udev.extraRules = o { type = t.lines; default = ""; };
    boot.supportedFilesystems = strs;
    services.dbus.packages = o { type = t.listOf t.path; default = [ ]; }; services.udisks2.enable = lib.mkEnableOption "udisks2";
    security.polkit.enable = lib.mkEnableOption "polkit"; security.polkit.extraConfig = o { type = t.lines; default = ""; };
    users.users = o { default = { }; type = t.attrsOf (t.submodule ({ name, ... }: { options = { name = o { type = t.str; default = name; }; isSystemUser = o { type = t.bool; default = false; }; isNormalUser = o { type = t.bool; default = false; }; group = o { type = t.str; default = ""; }; extraGroups = strs; home = o { type = t.path; default = "/var/empty"; }; createHome = o { type = t.bool; default = false; }; description = o { type = t.str; default = ""; }; uid = o { type = t.nullOr t.int; default = null; }; shell = o { type = t.raw; default = null; }; }; })); };
    users.groups = o { default = { }; type = t.attrsOf (t.submodule { options = { gid = o { type = t.nullOr t.int; default = null; }; members = strs; }; }); };
    systemd.services = units { serviceConfig = o { type = sect; default = { }; }; environment = o { type = t.attrsOf atom; default = { }; }; path = o { type = t.listOf t.raw; default = [ ]; }; restartIfChanged = o { type = t.bool; default = true; }; stopIfChanged = o { type = t.bool; default = true; }; script = o { type = t.lines; default = ""; }; preStart = o { type = t.lines; default = ""; }; startAt = o { type = t.either t.str (t.listOf t.str); default = [ ]; }; };
    systemd.timers = units { timerConfig = o { type = sect; default = { }; }; }; systemd.sockets = units { socketConfig = o { type = sect; default = { }; }; listenStreams = strs; }; systemd.targets = units { };
    systemd.generators = o { type = t.attrsOf t.path; default = { }; };
    systemd.paths = units { pathConfig = o { type = sect; default = { }; }; };
    systemd.user.services = units { serviceConfig = o { type = sect; default = { }; }; environment = o { type = t.attrsOf atom; default = { }; }; path = o { type = t.listOf t.raw; default = [ ]; }; };
    systemd.packages = o { type = t.listOf t.package; default = [ ]; }; systemd.tmpfiles.rules = strs; systemd.tmpfiles.settings = o { type = t.attrs; default = { }; }; systemd.tmpfiles.packages = o { type = t.listOf t.package; default = [ ]; };
  }; } ]; };
  # As nixos/modules/system/boot/systemd.nix warns.
  warned = lib.mapAttrsToList (n: _: "${n}.service has both reloadIfChanged and reloadTriggers")
    (lib.filterAttrs (_: u: u.reloadIfChanged && u.reloadTriggers != [ ]) checked.systemd.services);
  c = e.config; failed = builtins.filter (a: !a.assertion) c.assertions;
  checked = if failed != [ ] then throw "Failed assertions: ${lib.concatMapStringsSep "; " (a: a.message) failed}" else c;
in {
  config = checked;
  warnings = checked.warnings ++ warned;
  inherit (e) options;
  units = lib.mapAttrs' (n: u: lib.nameValuePair "${n}.service" (render svc u)) checked.systemd.services
    // lib.mapAttrs' (n: u: lib.nameValuePair "${n}.timer" (render tmr u)) checked.systemd.timers
    // lib.mapAttrs' (n: u: lib.nameValuePair "${n}.path" (render pth u)) checked.systemd.paths
    // lib.mapAttrs' (n: u: lib.nameValuePair "${n}.socket" (render sck u)) checked.systemd.sockets;
}
