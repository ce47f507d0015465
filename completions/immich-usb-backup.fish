# Tab completion of immich-usb-backup for fish: asks the program itself what fits.

function __immich_usb_backup_words
    set -l typed (commandline -opc) (commandline -ct)
    set -l lines (immich-usb-backup completion words $typed[2..-1] 2>/dev/null)
    if test "$lines[1]" = files
        __fish_complete_path (commandline -ct)
        return
    end
    test (count $lines) -gt 1; and printf '%s\n' $lines[2..-1]
end

complete -c immich-usb-backup -f -a '(__immich_usb_backup_words)'
