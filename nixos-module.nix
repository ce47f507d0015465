# Immich on a USB disk that is plugged in. With services.immich on the same machine, this is enough:
#
#   imports = [ ./path/to/nixos-module.nix ];
#   services.immich-usb-backup.enable = true;
#
# Units, rules and policies are the package's (systemd.packages and its like): one text for every distribution. What is set
# here is what NixOS knows better: where Immich is, which user reads its database, where secrets are.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:

let
  cfg = config.services.immich-usb-backup;
  format = pkgs.formats.toml { };
  inherit (lib) types;

  # Immich on this machine, where NixOS runs it (the option came with NixOS 24.11).
  immich = config.services.immich;
  hasImmich = options.services ? immich && immich.enable;
  # Its database on this machine lets its user in by the socket, without a password.
  hasDatabase = hasImmich && immich.database.enable && lib.hasPrefix "/" immich.database.host;
  immichSettings = if hasImmich then immich.settings or null else null;

  # What is not set is left out of the file: the program's own default holds, and there is one place that has it.
  option =
    type: description:
    lib.mkOption {
      type = types.nullOr type;
      default = null;
      inherit description;
    };
  section =
    description: known:
    lib.mkOption {
      inherit description;
      default = { };
      type = types.submodule {
        freeformType = format.type;
        options = known;
      };
    };
  # A section of these switches something on, though nothing is set in it.
  switches = [
    "ping"
    "push"
  ];
  withoutNull =
    value:
    if lib.isAttrs value then
      lib.filterAttrs (name: one: one != null && (one != { } || lib.elem name switches)) (
        lib.mapAttrs (_: withoutNull) value
      )
    else
      value;

  # Not types.path: a path literal would be copied into the store. A line feed would be the end of a unit's line.
  path = types.strMatching "/[^\n]*" // {
    description = "absolute path, as a text (\"/srv/immich\")";
  };
  percent = types.ints.between 0 100;
  outcome = types.enum [
    "ok"
    "partial"
    "failed"
    "interrupted"
  ];

  switch =
    description: on: known:
    lib.mkOption {
      inherit description;
      default = if on then { } else null;
      defaultText = lib.literalMD "`null`, and an empty section where the secret's file is set";
      type = types.nullOr (
        types.submodule {
          freeformType = format.type;
          options = known;
        }
      );
    };

  written = format.generate "immich-usb-backup.toml" (withoutNull cfg.settings);
  # A mistake stops the build, not the backup.
  checked = pkgs.runCommand "immich-usb-backup.toml" { } ''
    ${lib.getExe cfg.package} check-config --syntax-only ${written}
    cp ${written} $out
  '';

  # Every text and path: what is none of a secret's file is refused by an assertion, which has a way out and does not show it.
  secret =
    description:
    lib.mkOption {
      type = types.nullOr (types.either types.str types.path);
      default = null;
      example = "/run/secrets/immich-usb-backup";
      description = "${description} A path outside of the Nix store, which everybody may read; systemd hands it over as a credential, so root alone needs to be able to read it.";
    };
  # By the names that the units' credentials have, and the files in /etc/immich-usb-backup that they come from elsewhere.
  secrets = {
    smtp-password = "mailPasswordFile";
    ping-url = "pingUrlFile";
    push-urls = "pushUrlsFile";
    immich-api-key = "immichApiKeyFile";
    database-password = "databasePasswordFile";
  };
  secretFiles = {
    "mail.password_file" = cfg.settings.mail.password_file;
    "ping.url_file" = if cfg.settings.ping == null then null else cfg.settings.ping.url_file;
    "push.urls_file" = if cfg.settings.push == null then null else cfg.settings.push.urls_file;
    "database.api_key_file" = cfg.settings.database.api_key_file;
    "database.password_file" = cfg.settings.database.password_file;
  };
  given = lib.filterAttrs (_: option: cfg.${option} != null) secrets;
  inStore = file: lib.hasPrefix "${builtins.storeDir}/" file;
  isSecretFile = file: lib.isString file && path.check file && !inStore file;
  apiKey = if cfg.immichApiKeyFile != null then cfg.immichApiKeyFile else cfg.settings.database.api_key_file;
  usesPgDump = cfg.settings.database.mode == "pg_dump";
  postgresql = if hasDatabase then config.services.postgresql.package else pkgs.postgresql;
  # (toString: a path literal, which is refused, is not to be copied into the store first.)
  credential =
    name: lib.optional (given ? ${name}) "${name}:${withoutSpecifiers (toString cfg.${secrets.${name}})}";
  # Photos are hidden from the units that have no business with them, but for a folder that holds what the units themselves
  # need. (The generator does so too, and follows links.)
  mayNotSee = map quoted (
    lib.filter (folder: !touches folder) (
      lib.optional (cfg.settings.media_location != null) cfg.settings.media_location
      ++ lib.attrValues cfg.settings.extra
    )
  );
  within = file: folder: lib.hasPrefix "${lib.removeSuffix "/" folder}/" "${lib.removeSuffix "/" file}/";
  touches = folder: lib.any (needed: within needed folder || within folder needed) neededFolders;
  neededFolders = [
    "/usr"
    "/bin"
    "/sbin"
    "/lib"
    "/lib64"
    builtins.storeDir
    "/dev"
    "/proc"
    "/sys"
    "/var/lib/immich-usb-backup"
    "/var/lib/immich-usb-backup-notifier"
    "/var/lib/immich-usb-backup-dumps"
    "/tmp"
    "/var/tmp"
    "/etc/immich-usb-backup"
    "/run/systemd"
    "/run/dbus"
    "/run/credentials"
  ];
  # The unit hides homes; configured folders in them are opened. (The generator does so too, and follows links.)
  read =
    lib.filter (one: one != null) [
      cfg.settings.media_location
      cfg.settings.database.dumps
    ]
    ++ cfg.settings.config_files
    ++ lib.attrValues cfg.settings.extra;
  inHome = file: lib.any (within file) [ "/home" "/root" "/run/user" ];
  # As units have it: one word, optional, without specifiers.
  quoted =
    file: "\"-${builtins.replaceStrings [ "\\" "\"" ":" "%" ] [ "\\\\" "\\\"" "\\:" "%%" ] file}\"";
  withoutSpecifiers = builtins.replaceStrings [ "%" ] [ "%%" ];
in
{
  options.services.immich-usb-backup = {
    enable = lib.mkEnableOption "backups of Immich to USB disks that are plugged in";

    package = lib.mkOption {
      type = types.package;
      default = pkgs.callPackage ./package.nix { withPush = cfg.settings.push != null; };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The package to use.";
    };

    admins = lib.mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "alice" ];
      description = "Users who may begin, stop and approve backups and eject disks without a password: members of the group `immich-usb-backup-admins`.";
    };

    mailPasswordFile = secret "File whose first line is the password for the SMTP server.";
    pingUrlFile = secret "File whose first line is the address of a monitor, as of Healthchecks: it is told when a backup begins and how it ends.";
    pushUrlsFile = secret "File with one Apprise URL in each line: messages to phones and chats.";
    immichApiKeyFile = secret "File whose first line is the API key of an administrator of Immich, for `settings.database.mode = \"immich-api\"`.";
    databasePasswordFile = secret "File whose first line is the database's password, for `settings.database.mode = \"pg_dump\"` or `\"command\"`.";

    settings = lib.mkOption {
      default = { };
      description = "What goes into `/etc/immich-usb-backup/config.toml`. It is checked when the system is built. An option that is null is left out, and the program's default holds. All options: `docs/reference/configuration.md`.";
      type = types.submodule {
        freeformType = format.type;
        options = {
          media_location = lib.mkOption {
            type = types.nullOr path;
            default = if hasImmich then toString immich.mediaLocation else null;
            defaultText = lib.literalExpression "config.services.immich.mediaLocation";
            description = "The folder that holds Immich's `upload`, `library`, `profile` and `backups`. Default: `services.immich.mediaLocation` where that service is enabled, else `/var/lib/immich`.";
          };
          config_files = lib.mkOption {
            type = types.listOf path;
            default = [
              "/etc/nixos"
            ]
            ++ lib.optional (immichSettings != null) (
              toString ((pkgs.formats.json { }).generate "immich-settings.json" immichSettings)
            );
            defaultText = lib.literalMD "`/etc/nixos`, and `services.immich.settings` as a file where they are set";
            description = "Files and folders that are zipped to the disk: what you need to set Immich up again. Passwords in them can be read by whoever has the disk.";
          };
          keep_config_files = option types.ints.positive "How many zips of the configuration stay on the disk, the newest.";
          keep_deleted_days = option types.ints.unsigned "How many days what left the backup is kept in `deleted/` on the disk.";
          extra = lib.mkOption {
            type = types.attrsOf path;
            default = { };
            example = { pictures = "/mnt/Pictures"; };
            description = "Folders outside of the media location, such as Immich's external libraries, by names of your choice.";
          };
          exclude = lib.mkOption {
            type = types.attrsOf (types.listOf types.str);
            default = { };
            example = { pictures = [ "*.tmp" ]; };
            description = "Patterns, in rsync's syntax, of what is left out of `upload`, `library`, `profile` or the extra folder of that name.";
          };
          deletions = section "When deletions wait for somebody's approval." {
            hold_percent = option percent "This share, in percent, of the files that the disk holds may leave without being asked about …";
            hold_files = option types.ints.unsigned "… and this many files in any case.";
          };
          disk = lib.mkOption {
            default = { };
            description = "What holds for one disk only, by its name, label or UUID.";
            type = types.attrsOf (
              types.submodule {
                freeformType = format.type;
                options = {
                  mode = option (types.enum [
                    "quick"
                    "verify"
                    "full"
                  ]) "How thorough the backup is that begins when this disk is plugged in.";
                  due_days = option types.ints.unsigned "Days after the last good backup until this disk is late. 0: never. Default: `freshness.due_days`.";
                  schedule = option types.str "When a disk that stays plugged in is backed up to, such as `daily 03:00` or whatever systemd.time(7) knows.";
                };
              }
            );
          };
          database = section "The database dump." {
            dumps = option path "The folder with Immich's routine dumps. Default: `backups` in the media location.";
            keep = option types.ints.positive "How many dumps stay on the disk, the newest.";
            warn_after_hours = option types.ints.unsigned "A dump that is older makes a backup partial. 0: never.";
            mode = lib.mkOption {
              type = types.nullOr (
                types.enum [
                  "latest"
                  "pg_dump"
                  "immich-api"
                  "command"
                ]
              );
              default = if hasDatabase then "pg_dump" else null;
              defaultText = lib.literalMD "`\"pg_dump\"` where `services.immich.database.enable` is set";
              description = "`latest` takes Immich's newest good dump; with the others a fresh one is made first.";
            };
            fresh_minutes = option types.ints.positive "How long making a fresh dump may take.";
            url = lib.mkOption {
              type = types.nullOr types.str;
              default =
                if hasDatabase then
                  "postgresql:///${immich.database.name}?host=${immich.database.host}"
                else
                  null;
              defaultText = lib.literalMD "the socket and name of `services.immich.database`";
              description = "For `pg_dump`: the database's address, without a password.";
            };
            password_file = option path "Not needed: use `services.immich-usb-backup.databasePasswordFile`.";
            api_url = option types.str "For `immich-api`: Immich's address.";
            api_key_file = option path "Not needed: use `services.immich-usb-backup.immichApiKeyFile`.";
            command = option (types.listOf types.str) "For `command`: a program and its arguments; what it prints is the dump.";
          };
          disks = section "Which disks are looked at, and how they are left." {
            transports = option (types.listOf (
              types.enum [
                "usb"
                "mmc"
                "loop"
              ]
            )) "On which buses disks are looked at. `mmc`: SD card readers that are no USB devices.";
            automounter_grace_seconds = option (types.ints.between 0 60) "How long a desktop may have to mount a new disk before the service does.";
            trust = option (types.enum [
              "marker"
              "enrolled"
            ]) "Which disks get the photos: every one with the marker, or those only that were enrolled on this server.";
            on_battery = option (types.enum [
              "wait"
              "run"
              "skip"
            ]) "What a plug-in leads to while the server runs on battery: a backup when mains is back, one now, or none.";
            power_off = option types.bool "Switch the disk off after the unmount. This takes every disk in the same enclosure with it.";
            check_file_system = option (types.enum [
              "repair-own"
              "check"
              "never"
            ]) "What is done about a disk that was not unmounted properly, before it is written to.";
            walk_after_days = option types.ints.unsigned "How many days the manifest is believed before the disk is looked at from end to end again.";
            reserve_megabytes = option types.ints.unsigned "Room, in 1,000,000 bytes, that the partition must have beyond the library.";
          };
          verification = section "What is read back from the disk." {
            read_back = option types.bool "Read back what was copied, past the page cache, before success is said.";
            minutes = option (types.either types.ints.unsigned (types.enum [ "unlimited" ])) "How long a backup reads files again in turn, once everything new is on the disk.";
            again_after_days = option types.ints.unsigned "A file that was read back less long ago is not due.";
          };
          mail = section "Mail through an SMTP server. Without `host` no mail is sent." {
            host = option types.str "The SMTP server.";
            port = option types.port "Its port. Default by `security`: 587, 465 or 25.";
            security = option (types.enum [
              "starttls"
              "tls"
              "none"
            ]) "`none` is allowed for this machine only.";
            username = option types.str "The user's name at the server.";
            password_file = option path "Not needed: use `services.immich-usb-backup.mailPasswordFile`.";
            ca_file = option path "Certificates to trust, in PEM form, for a server with a certificate of your own.";
            from = option types.str "The sender's address.";
            to = option (types.listOf types.str) "The recipients' addresses.";
            on = option (types.listOf outcome) "The outcomes that are mailed.";
          };
          freshness = section "How long a backup is fresh." {
            due_days = option types.ints.unsigned "Days after its last good backup until a disk is late. 0: never.";
            remind = option types.bool "Remind of it: in the journal, on desktops and by mail.";
          };
          ping = switch "A monitor that is told when a backup begins and how it ends." (cfg.pingUrlFile != null) {
            url = option types.str "Its address. One with a secret in it is better kept in `services.immich-usb-backup.pingUrlFile`.";
            url_file = option path "Not needed: use `services.immich-usb-backup.pingUrlFile`.";
          };
          push = switch "Messages to phones and chats through Apprise." (cfg.pushUrlsFile != null) {
            urls_file = option path "Not needed: use `services.immich-usb-backup.pushUrlsFile`.";
            on = option (types.listOf outcome) "The outcomes that are pushed.";
          };
          metrics = section "Figures for Prometheus." {
            textfile = option path "A file for the node exporter's textfile collector, which ends in `.prom`.";
          };
          desktop = section "Messages on the desktop." {
            group = option types.str "Its members are shown everything always; everybody else only while they are the ones at the screen.";
            on = option (types.listOf outcome) "The outcomes that are shown.";
            progress = option types.bool "Show that a backup has begun, and how far it is.";
          };
          logging = section "How much goes to the journal." {
            level = option (types.enum [
              "debug"
              "info"
              "warning"
              "error"
            ]) "From which priority on lines go to the journal.";
          };
        };
      };
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.settings.media_location != null || !hasImmich;
        message = "services.immich-usb-backup.settings.media_location is null: name the folder that holds Immich's upload, library and profile.";
      }
      {
        assertion = cfg.settings.database.mode != "command" || cfg.settings.database.command != null;
        message = "services.immich-usb-backup.settings.database.mode is \"command\": set services.immich-usb-backup.settings.database.command, or another mode.";
      }
      {
        assertion = cfg.settings.database.mode != "immich-api" || apiKey != null;
        message = "services.immich-usb-backup.settings.database.mode is \"immich-api\": set services.immich-usb-backup.immichApiKeyFile.";
      }
      {
        assertion = (cfg.settings.mail.host == null) == (cfg.settings.mail.to == null);
        message = "services.immich-usb-backup.settings.mail.host and services.immich-usb-backup.settings.mail.to go together: set both, or neither.";
      }
      {
        assertion = cfg.settings.metrics.textfile == null || builtins.dirOf cfg.settings.metrics.textfile != "/";
        message = "services.immich-usb-backup.settings.metrics.textfile lies in /, and its folder would be opened to the service: name a file in a folder of its own, such as \"/var/lib/node-exporter/immich_usb_backup.prom\".";
      }
    ]
    ++ map (name: {
      assertion = isSecretFile cfg.${name};
      message = "services.immich-usb-backup.${name} must name a file outside of the Nix store, which everybody may read: as a text (\"/run/secrets/...\"), not as a path (./file), and not with the secret itself.";
    }) (lib.attrValues given)
    ++ lib.mapAttrsToList (name: file: {
      assertion = file == null || !inStore file;
      message = "services.immich-usb-backup.settings.${name} is in the Nix store, which everybody may read: name a file outside of it, as a text (\"/run/secrets/...\").";
    }) secretFiles;

    warnings = lib.optional (cfg.settings.media_location == null) "services.immich-usb-backup.settings.media_location is not set, and services.immich is not enabled on this machine: Immich's upload, library and profile are looked for in /var/lib/immich. Name their folder (with docker, the value of UPLOAD_LOCATION).";

    environment.systemPackages = [ cfg.package ];
    # The secrets as links, too: there the commands that look at the set-up expect them.
    environment.etc = {
      "immich-usb-backup/config.toml".source = checked;
    }
    // lib.mapAttrs' (name: option: {
      name = "immich-usb-backup/${name}";
      value.source = toString cfg.${option};
    }) given;

    boot.supportedFilesystems = [ "exfat" ];
    services.udisks2.enable = true;
    services.udev.packages = [ cfg.package ];
    services.dbus.packages = [ cfg.package ];
    security.polkit.enable = true;
    security.polkit.extraConfig = builtins.readFile ./systemd/50-immich-usb-backup.rules;

    users.users = lib.genAttrs [ "immich-usb-backup" "immich-usb-backup-notify" "immich-usb-backup-dump" ] (name: {
      isSystemUser = true;
      group = name;
      description = "Immich USB backup";
    });
    users.groups = lib.genAttrs [ "immich-usb-backup" "immich-usb-backup-notify" "immich-usb-backup-dump" ] (_: { }) // {
      immich-usb-backup-admins.members = cfg.admins;
    };

    systemd.tmpfiles.packages = [ cfg.package ];
    # With its generator: timers for disks with a schedule, at each boot and each rebuild.
    systemd.packages = [ cfg.package ];

    # A rebuild must not end a backup. Told to reload, the service begins anew with what is new when no backup runs.
    systemd.services.immich-usb-backup = {
      wantedBy = [ "multi-user.target" ];
      reloadIfChanged = true;
      restartTriggers = [ checked ];
      serviceConfig = {
        ExecReload = [
          "" # the package's reads the configuration only
          "${lib.getExe' pkgs.coreutils "kill"} -USR1 $MAINPID"
        ];
        InaccessiblePaths = map (option: quoted (toString cfg.${option})) (lib.attrValues given);
        BindReadOnlyPaths = map quoted (lib.filter inHome read);
        ReadWritePaths = lib.optional (cfg.settings.metrics.textfile != null) (quoted (builtins.dirOf cfg.settings.metrics.textfile));
      };
    };

    systemd.timers.immich-usb-backup-remind.wantedBy = [ "timers.target" ];
    systemd.paths.immich-usb-backup-notifier.wantedBy = [ "multi-user.target" ];
    systemd.services.immich-usb-backup-notifier = {
      restartTriggers = [ checked ];
      serviceConfig = {
        LoadCredential = credential "smtp-password" ++ credential "ping-url" ++ credential "push-urls";
        InaccessiblePaths = mayNotSee;
      };
    };

    # What works for a backup that runs is left to end. The socket lets only Immich's user into the database, so that user makes
    # the dump.
    systemd.services.immich-usb-backup-dump = {
      restartIfChanged = false;
      path = lib.optional usesPgDump postgresql;
      serviceConfig = {
        LoadCredential = credential "immich-api-key" ++ credential "database-password";
        InaccessiblePaths = mayNotSee;
      }
      // lib.optionalAttrs (hasDatabase && usesPgDump) { User = lib.mkDefault immich.user; };
    };

    systemd.services."immich-usb-backup-check@" = {
      restartIfChanged = false;
      serviceConfig.InaccessiblePaths = mayNotSee;
    };
    systemd.services."immich-usb-backup-repair@" = {
      restartIfChanged = false;
      serviceConfig.InaccessiblePaths = mayNotSee;
    };
    # These ask the service, and would ask once more.
    systemd.services."immich-usb-backup-schedule@" = {
      restartIfChanged = false;
      serviceConfig.InaccessiblePaths = mayNotSee;
    };
    systemd.services.immich-usb-backup-remind = {
      restartIfChanged = false;
      serviceConfig.InaccessiblePaths = mayNotSee;
    };

    systemd.user.services.immich-usb-backup-agent.wantedBy = [ "graphical-session.target" ];
  };
}
