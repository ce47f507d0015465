# The program with its units, rules and policies. In a flake or a configuration: pkgs.callPackage ./package.nix { }
{
  lib,
  python3Packages,
  coreutils,
  exfatprogs,
  rsync,
  systemd,
  util-linux,
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
      ./daemon
      ./systemd
      ./udev-rules
      ./README.md
      ./pyproject.toml
    ];
  };

  build-system = [ python3Packages.hatchling ];
  dependencies = with python3Packages; [
    dbus-next
    pydantic
    pyudev
    sdnotify
    structlog
  ];

  # Nothing but the programs that it runs. pg_dump is not among them: it must fit the server, so the module adds that one.
  makeWrapperArgs = [
    "--prefix PATH : ${
      lib.makeBinPath [
        coreutils
        exfatprogs
        rsync
        systemd
        util-linux
      ]
    }"
  ];

  # The units name the program where an installation by hand has it. The polkit rule is not here: the module reads it.
  postInstall = ''
    install -Dm444 -t $out/lib/systemd/system systemd/*.service systemd/*.path
    rm $out/lib/systemd/system/immich-usb-backup-agent.service
    install -Dm444 -t $out/lib/systemd/user systemd/immich-usb-backup-agent.service
    install -Dm444 systemd/immich-usb-backup.tmpfiles.conf $out/lib/tmpfiles.d/immich-usb-backup.conf
    install -Dm444 -t $out/share/dbus-1/system.d systemd/io.github.immich_usb_backup1.conf
    install -Dm444 -t $out/lib/udev/rules.d udev-rules/*.rules
    install -Dm444 -t $out/share/doc/immich-usb-backup systemd/*.example.toml
    substituteInPlace $out/lib/systemd/*/*.service \
      --replace-quiet /usr/local/bin/immich-usb-backup $out/bin/immich-usb-backup \
      --replace-quiet ExecReload=kill ExecReload=${lib.getExe' coreutils "kill"}
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
