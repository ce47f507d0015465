# The program with its units, rules and policies. In a flake or a configuration: pkgs.callPackage ./package.nix { }
{
  lib,
  python3Packages,
  coreutils,
  exfatprogs,
  rsync,
  systemd,
  util-linux,
  withPush ? false,
}:

let
  project = (builtins.fromTOML (builtins.readFile ./pyproject.toml)).project;
in
python3Packages.buildPythonApplication {
  pname = project.name;
  inherit (project) version;
  pyproject = true;

  src = lib.fileset.toSource {
    root = ./.;
    fileset = lib.fileset.unions [
      ./completions
      ./daemon
      ./docs/reference
      ./scripts/manual.py
      ./systemd
      ./udev-rules
      ./README.md
      ./pyproject.toml
    ];
  };

  build-system = [ python3Packages.hatchling ];
  dependencies =
    with python3Packages;
    [
      dbus-next
      pydantic
      pyudev
      sdnotify
      structlog
    ]
    ++ lib.optional withPush apprise;

  # Nothing but the programs that it runs. pg_dump is not among them: it must fit the server, so the module adds that one.
  makeWrapperArgs = [
    "--prefix"
    "PATH"
    ":"
    (lib.makeBinPath [
      coreutils
      exfatprogs
      rsync
      systemd
      util-linux
    ])
  ];

  # Units, rules, policies, manual pages, completions: one list for all ways to install. The polkit rule is the module's
  # too: whether polkit reads packages' rules depends on the release of NixOS, and twice does no harm.
  postInstall = ''
    $out/bin/immich-usb-backup install-system --stage $out --program $out/bin/immich-usb-backup
    substituteInPlace $out/lib/systemd/system/immich-usb-backup.service \
      --replace-fail ExecReload=kill ExecReload=${lib.getExe' coreutils "kill"}
    rm -r $out/${python3Packages.python.sitePackages}/immich_usb_backup/system
  '';

  # The tests need real disks, buses and a virtual machine: ./scripts/test.
  doCheck = false;
  pythonImportsCheck = [ "immich_usb_backup" ];

  meta = {
    inherit (project) description;
    mainProgram = "immich-usb-backup";
    platforms = lib.platforms.linux;
  };
}
