# Tab completion of immich-usb-backup for bash: asks the program itself what fits.

_immich_usb_backup() {
    local typed=${COMP_WORDS[COMP_CWORD]} line text
    local -a lines
    mapfile -t lines < <(immich-usb-backup completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    COMPREPLY=()
    if [[ ${lines[0]-} = files ]]; then
        compopt -o default
        return
    fi
    for line in "${lines[@]:1}"; do
        text=${line%%$'\t'*}
        # Within a quote the word stands as it is; elsewhere bash must not split it.
        [[ $typed = [\"\']* ]] || printf -v text '%q' "$text"
        COMPREPLY+=("$text")
    done
}
complete -F _immich_usb_backup immich-usb-backup
