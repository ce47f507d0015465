# A small, self-written stand-in for the parts of nixpkgs' lib that a service
# module uses: option declarations, types, and evalModules.  Unknown options,
# ill-typed values and missing definitions are errors, as in the real one.
let
  inherit (builtins) isAttrs isFunction isList isString isInt isBool isPath attrNames attrValues
    concatLists concatStringsSep elem filter foldl' functionArgs head intersectAttrs length listToAttrs
    map mapAttrs removeAttrs stringLength substring tail toString typeOf match sort replaceStrings;
  show = p: concatStringsSep "." p;
  hasType = t: v: isAttrs v && (v._type or "") == t;
  isDrv = v: isAttrs v && (v.type or "") == "derivation";

  # -- definitions: [ { value; prio; order; } ] after mkIf/mkMerge/mkOverride/mkOrder
  discharge = prio: order: v:
    if hasType "if" v then (if v.condition then discharge prio order v.content else [ ])
    else if hasType "merge" v then concatLists (map (discharge prio order) v.contents)
    else if hasType "override" v then discharge v.priority order v.content
    else if hasType "order" v then discharge prio v.priority v.content
    else [ { value = v; inherit prio order; } ];
  # push mkIf & co. one attribute level down, so `mkIf c { a = 1; }` defines a = mkIf c 1
  pushDown = v:
    if hasType "if" v then map (mapAttrs (_: lib.mkIf v.condition)) (pushDown v.content)
    else if hasType "merge" v then concatLists (map pushDown v.contents)
    else if hasType "override" v then map (mapAttrs (_: lib.mkOverride v.priority)) (pushDown v.content)
    else [ v ];

  mkType = name: check: { inherit name check; description = name; merge = loc: ds:
    if length ds == 1 || all (d: d.value == (head ds).value) (tail ds) then (head ds).value
    else throw "The option `${show loc}' has conflicting definition values."; };
  all = f: l: foldl' (a: x: a && f x) true l;
  any = f: l: foldl' (a: x: a || f x) false l;
  concatType = base: sep: base // { merge = _: ds: concatStringsSep sep (map (d: d.value) ds); };
  sub = loc: type: vs: mergeDefs loc type (concatLists (map (discharge 100 1000) vs));

  mergeDefs = loc: type: ds0: let
    top = foldl' (m: d: if d.prio < m then d.prio else m) 9999 ds0;
    ds = sort (a: b: a.order < b.order) (filter (d: d.prio == top) ds0);
    bad = filter (d: !type.check d.value) ds;
  in if ds == [ ] then (if type ? emptyValue then type.emptyValue else throw "The option `${show loc}' is used but not defined.")
     else if bad != [ ] then throw "A definition for option `${show loc}' is not of type `${type.description or type.name}': ${show1 (head bad).value}"
     else type.merge loc ds;
  show1 = v: if isAttrs v then "{ ${toString (attrNames v)} }" else if isFunction v then "<function>" else builtins.toJSON v;

  # -- the option tree
  evalTree = loc: opts: defs: freeform: let   # defs: list of attrsets (still with mkIf inside)
    flat = concatLists (map pushDown defs);
    names = attrNames (foldl' (a: d: a // d) { } flat);
    unknown = filter (n: !(opts ? ${n})) names;
    at = n: map (d: d.${n}) (filter (d: d ? ${n}) flat);
  in (if unknown != [ ] && freeform == null then throw "The option `${show (loc ++ [ (head unknown) ])}' does not exist."
      else if unknown == [ ] then { } else freeform.merge loc (map (d: { value = intersectAttrs (listToAttrs (map (name: { inherit name; value = 1; }) unknown)) d; prio = 100; order = 1000; }) flat))
     // mapAttrs (n: o: let l = loc ++ [ n ]; in
      if hasType "option" o then
        (o.apply or (x: x)) (mergeDefs l o.type (concatLists (map (discharge 100 1000) (at n))
          ++ (if o ? default then [ { value = o.default; prio = 1500; order = 1000; } ] else [ ])))
      else evalTree l o (at n) null) opts;

  mergeOpts = a: b: a // mapAttrs (n: v:
    if !(a ? ${n}) then v
    else if hasType "option" v || hasType "option" a.${n} then throw "The option `${n}' is declared twice."
    else mergeOpts a.${n} v) b;

  lib = {
    mkOption = o: o // { _type = "option"; };
    mkEnableOption = d: lib.mkOption { type = lib.types.bool; default = false; description = "Whether to enable ${d}."; };
    mkPackageOption = pkgs: name: { default ? name, nullable ? false, ... }: lib.mkOption ({
      type = if nullable then lib.types.nullOr lib.types.package else lib.types.package; description = "The ${toString name} package to use.";
    } // (if default == null then { } else { default = foldl' (p: n: p.${n} or (throw "${n} cannot be found in pkgs")) pkgs (if isList default then default else [ default ]); }));
    mkIf = condition: content: { _type = "if"; inherit condition content; };
    mkMerge = contents: { _type = "merge"; inherit contents; };
    mkOverride = priority: content: { _type = "override"; inherit priority content; };
    mkDefault = lib.mkOverride 1000; mkForce = lib.mkOverride 50;
    mkOrder = priority: content: { _type = "order"; inherit priority content; };
    mkBefore = lib.mkOrder 500; mkAfter = lib.mkOrder 1500;
    literalExpression = text: { _type = "literalExpression"; inherit text; };
    literalMD = lib.literalExpression;
    inherit isList isAttrs isString isFunction attrNames attrValues mapAttrs filter elem head tail length concatLists concatStringsSep all any;
    optional = c: v: if c then [ v ] else [ ]; optionals = c: v: if c then v else [ ];
    optionalString = c: v: if c then v else ""; optionalAttrs = c: v: if c then v else { };
    nameValuePair = name: value: { inherit name value; };
    genAttrs = ns: f: listToAttrs (map (n: lib.nameValuePair n (f n)) ns);
    mapAttrsToList = f: s: map (n: f n s.${n}) (attrNames s);
    mapAttrs' = f: s: listToAttrs (lib.mapAttrsToList f s);
    filterAttrs = p: s: listToAttrs (concatLists (map (n: if p n s.${n} then [ (lib.nameValuePair n s.${n}) ] else [ ]) (attrNames s)));
    concatMap = builtins.concatMap; concatMapStringsSep = s: f: l: concatStringsSep s (map f l); concatStrings = concatStringsSep "";
    removeSuffix = x: s: if lib.hasSuffix x s then substring 0 (stringLength s - stringLength x) s else s;
    hasPrefix = p: s: substring 0 (stringLength p) s == p;
    hasSuffix = x: s: let n = stringLength s - stringLength x; in n >= 0 && substring n (-1) s == x;
    escapeShellArg = s: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString s)}'"; escapeShellArgs = lib.concatMapStringsSep " " lib.escapeShellArg;
    getExe = p: "${p}/bin/${p.meta.mainProgram or (throw "getExe: no meta.mainProgram")}"; getExe' = p: n: "${p}/bin/${n}";
    makeBinPath = lib.concatMapStringsSep ":" (p: "${p}/bin");
    maintainers = { }; licenses = { mit.spdxId = "MIT"; gpl3Plus.spdxId = "GPL-3.0-or-later"; asl20.spdxId = "Apache-2.0"; };
    types = let t = lib.types; in {
      bool = mkType "boolean" isBool; int = mkType "signed integer" isInt; str = mkType "string" isString;
      float = mkType "floating point number" builtins.isFloat; number = t.either t.int t.float;
      ints = { unsigned = mkType "unsigned integer" (v: isInt v && v >= 0); positive = mkType "positive integer" (v: isInt v && v > 0);
        between = a: b: mkType "integer between ${toString a} and ${toString b}" (v: isInt v && v >= a && v <= b); };
      port = t.ints.between 0 65535;
      lines = concatType t.str "\n"; commas = concatType t.str ","; nonEmptyStr = mkType "non-empty string" (v: isString v && match "[ \t\n]*" v == null);
      strMatching = re: mkType "string matching ${re}" (v: isString v && match re v != null);
      path = mkType "path" (v: isDrv v || ((isString v || isPath v) && substring 0 1 (toString v) == "/"));
      package = mkType "package" isDrv;
      anything = (mkType "anything" (_: true)) // { merge = loc: ds: if all (d: isAttrs d.value && !isDrv d.value) ds then (t.attrsOf t.anything).merge loc ds else (mkType "" (_: true)).merge loc ds; };
      attrs = (mkType "attribute set" isAttrs) // { merge = _: ds: foldl' (a: d: a // d.value) { } ds; emptyValue = { }; };
      raw = mkType "raw value" (_: true); unspecified = t.anything;
      enum = vs: mkType "one of ${builtins.toJSON vs}" (v: elem v vs);
      nullOr = e: (if e ? options then { inherit (e) options; } else { }) // { name = "null or ${e.description or e.name}"; check = v: v == null || e.check v; merge = loc: ds: if all (d: d.value == null) ds then null else e.merge loc ds; };
      either = a: b: { name = "${a.description or a.name} or ${b.description or b.name}"; check = v: a.check v || b.check v; merge = loc: ds: (if all (d: a.check d.value) ds then a else b).merge loc ds; };
      oneOf = l: if length l == 1 then head l else t.either (head l) (t.oneOf (tail l));
      listOf = e: { name = "list of ${e.description or e.name}"; check = isList; emptyValue = [ ];
        merge = loc: ds: map (v: sub (loc ++ [ "*" ]) e [ v ]) (concatLists (map (d: d.value) ds)); };
      attrsOf = e: { name = "attribute set of ${e.description or e.name}"; element = e; check = isAttrs; emptyValue = { };
        merge = loc: ds: let flat = concatLists (map (d: pushDown d.value) ds); all' = mapAttrs (n: _: concatLists (map (discharge 100 1000) (map (d: d.${n}) (filter (d: d ? ${n}) flat)))) (foldl' (a: d: a // d) { } flat);
          in mapAttrs (n: d: mergeDefs (loc ++ [ n ]) e d) (lib.filterAttrs (_: d: d != [ ]) all'); };
      lazyAttrsOf = t.attrsOf;
      submodule = m: { name = "submodule"; options = (lib.evalModules { modules = if isList m then m else [ m ]; }).options; check = v: isAttrs v || isFunction v; emptyValue = (lib.evalModules { modules = [ m ]; }).config;
        merge = loc: ds: (lib.evalModules { modules = (if isList m then m else [ m ]) ++ map (d: if isFunction d.value then d.value else { config = d.value; }) ds; prefix = loc; specialArgs.name = if loc == [ ] then "" else builtins.elemAt loc (length loc - 1); }).config; };
      addCheck = b: c: b // { check = v: b.check v && c v; };
    };
    evalModules = { modules, specialArgs ? { }, prefix ? [ ] }: let
      args = { inherit lib; config = result; options = opts; } // specialArgs;
      load = m: let
        f = if isPath m || isString m then import m else m;
        v = if isFunction f then f args else f;
        whole = v ? options || v ? config || v ? freeformType;
        extra = attrNames (removeAttrs v [ "options" "config" "imports" "meta" "freeformType" "_file" "key" "_class" "disabledModules" ]);
      in concatLists (map load (v.imports or [ ])) ++ [ (
        if whole && extra != [ ] then throw "module has the unsupported attribute `${head extra}'"
        else if whole then { options = v.options or { }; config = v.config or { }; freeform = v.freeformType or null; }
        else { options = { }; config = removeAttrs v [ "imports" ]; freeform = null; }) ];
      ms = concatLists (map load modules);
      opts = foldl' mergeOpts { } (map (m: m.options) ms);
      freeform = foldl' (a: m: if m.freeform != null then m.freeform else a) null ms;
      result = evalTree prefix opts (map (m: m.config) ms) freeform;
    in { config = result; options = opts; };
  };
in lib
