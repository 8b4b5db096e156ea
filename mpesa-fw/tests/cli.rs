//! The command line as it is typed: what it prints, where, and how it ends.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use mpesa_fw::fault;

const CALLBACKS: &str = "version: 1
mode: enforce
interfaces: [eth0]
sets:
  safaricom: [196.201.214.200]
ingress:
  default: drop
  services:
    - { name: callbacks, ports: [8443], from: [safaricom] }
egress:
  default: drop
  allow:
    - { name: dns, to: [10.0.0.2], protocol: udp, ports: [53] }
";

fn mpesa_fw(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mpesa-fw"));
    // Whoever runs the tests over SSH, or on a wide terminal, sees the same.
    command.args(arguments).env_remove("SSH_CONNECTION").env_remove("MPESA_FW_LOG").env("COLUMNS", "100");
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    said(mpesa_fw(arguments).output().expect("the program runs"))
}

fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn rules(&self, text: &str) -> PathBuf {
        let path = self.path().join("rules.yaml");
        fs::write(&path, text).expect("the directory can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        path
    }

    fn text(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }
}

fn anonymous(text: &str, directory: &Directory) -> String {
    text.replace(&directory.path().display().to_string(), "DIR")
}

/// The program itself comes first.
const COMMANDS: &str = " run check reload confirm rollback status events capture listeners why diff doctor detach completions man";

#[test]
fn help() {
    let mut all = String::new();
    for command in COMMANDS.split(' ') {
        let arguments: Vec<&str> = [command, "--help"].into_iter().filter(|a| !a.is_empty()).collect();
        let (code, stdout, stderr) = run(&arguments);
        assert_eq!((code, stderr.as_str()), (0, ""), "{command}");
        all += &format!("$ mpesa-fw {}\n{stdout}\n", arguments.join(" "));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn usage_is_exit_2() {
    for wrong in [
        &[][..],
        &["explode"],
        &["run"],
        &["status", "--format", "xml"],
        &["run", "--rules", "x", "--metrics", "nowhere"],
    ] {
        let (code, stdout, stderr) = run(wrong);
        assert_eq!(code, 2, "{wrong:?}");
        assert!(
            stdout.is_empty() && stderr.contains("Usage") || stderr.contains("--help"),
            "{wrong:?}: {stderr}"
        );
    }
}

#[test]
fn a_valid_policy() {
    let directory = Directory::new();
    let rules = directory.rules(CALLBACKS);
    let (code, stdout, stderr) = run(&["check", &rules.display().to_string()]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(
        stdout.contains("valid (enforce; 1 services, 1 destinations, 1 sets with 1 prefixes"),
        "{stdout}"
    );
    let (code, json, _) = run(&["check", &rules.display().to_string(), "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["valid"], &json["policy"]["services"]), (0, &true.into(), &1.into()));
}

#[test]
fn an_invalid_policy_is_exit_1_and_shows_every_mistake() {
    let directory = Directory::new();
    let rules = directory.rules(&CALLBACKS.replace("8443", "0").replace("[safaricom]", "[safarikom]"));
    let (code, stdout, stderr) = run(&["check", &rules.display().to_string()]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    insta::assert_snapshot!(anonymous(&stderr, &directory));
    let (code, json, stderr) = run(&["check", &rules.display().to_string(), "--format", "json"]);
    assert_eq!((code, stderr.as_str()), (1, ""));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["errors"].as_array().map(Vec::len), Some(2));
}

#[test]
fn of_mistakes_that_are_not_shown_the_number_is() {
    let directory = Directory::new();
    for (entries, more, total) in [
        ("x,".repeat(200), None, 200),
        ("x,".repeat(201), Some("and 1 more error, not shown"), 201),
        ("x,".repeat(700), Some("and 500 more errors, not shown"), 700),
    ] {
        let rules = directory.rules(&CALLBACKS.replace("[safaricom]", &format!("[{entries}]")));
        let (code, stdout, stderr) = run(&["check", &rules.display().to_string()]);
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert_eq!(stderr.contains(&format!("\n\nerror: {}\n", more.unwrap_or("and "))), more.is_some());
        assert!(stderr.ends_with(&format!("\n\n{total} errors; nothing was loaded\n")), "{stderr}");
        let (code, json, _) = run(&["check", &rules.display().to_string(), "--format", "json"]);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((code, &json["total"]), (1, &total.into()), "a program gets all of them");
        let errors = json["errors"].as_array().expect("a list");
        assert_eq!(errors.len(), total);
        let told = |error: &serde_json::Value| error["line"].is_u64() && error["column"].as_u64() > Some(1);
        assert!(errors.iter().all(told), "each with its place");
    }
}

#[test]
fn a_program_gets_every_mistake_of_a_large_file_soon() {
    let directory = Directory::new();
    // In one line: to show a piece of it for each takes more than a moment.
    let rules = directory.rules(&CALLBACKS.replace("[safaricom]", &format!("[{}]", "x,".repeat(50_000))));
    let begun = std::time::Instant::now();
    let (code, json, _) = run(&["check", &rules.display().to_string(), "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, json["errors"].as_array().map(Vec::len)), (1, Some(50_000)));
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

#[test]
fn warnings_that_are_not_shown_change_no_exit_code() {
    let directory = Directory::new();
    let unused: String = (0..300).map(|n| format!("  unused-{n}: [192.0.2.1]\n")).collect();
    let rules = directory.rules(&CALLBACKS.replace("sets:\n", &format!("sets:\n{unused}")));
    let (code, stdout, stderr) = run(&["check", &rules.display().to_string()]);
    assert!(stdout.contains(", 300 warnings"), "{stdout}");
    assert!(code == 0 && stderr.contains("warning: and 100 more warnings, not shown"), "{code} {stderr}");
}

/// Each service has a copy of its local addresses: half a million in each of 64, or thousands in each of services that
/// are too many anyway, took gigabytes.
#[test]
fn large_local_sets_are_refused_before_memory_is_gone() {
    let directory = Directory::new();
    let feed = |count: u32| {
        let lines: String =
            (0..count).map(|n| format!("{}\n", std::net::Ipv4Addr::from_bits((10 << 24) + 2 * n))).collect();
        fs::write(directory.path().join("feed.netset"), lines).expect("the directory can be written");
    };
    for (services, addresses, says) in
        [(64, 500_000, "500000 prefixes; 4096 are possible"), (10_000, 4096, "10001 services")]
    {
        feed(addresses);
        let services: String = (0..services)
            .map(|n| format!("    - {{ name: s{n}, ports: [1], from: [any], to: [feed] }}\n"))
            .collect();
        let rules = CALLBACKS
            .replace("sets:\n", "sets:\n  feed: { file: feed.netset }\n")
            .replace("  services:\n", &format!("  services:\n{services}"));
        let rules = directory.rules(&rules);
        let mut check = Command::new("sh");
        check.args(["-c", "ulimit -v 600000; exec \"$0\" check --ignore-permissions \"$1\""]);
        let (code, _, stderr) =
            said(check.arg(env!("CARGO_BIN_EXE_mpesa-fw")).arg(&rules).output().expect("it runs"));
        assert!(code == 1 && stderr.contains(says), "{code}: {stderr}");
    }
}

/// Every field of `check --format json`: programs read them by name.
#[test]
fn the_json_of_check() {
    let directory = Directory::new();
    let mut all = String::new();
    for rules in [
        CALLBACKS.replace("safaricom]", "any]"),
        CALLBACKS.replace("8443", "0"),
        CALLBACKS.replace("version: 1", "version: 1\nserial: 7"),
    ] {
        let rules = directory.rules(&rules);
        let (_, json, _) = run(&["check", &rules.display().to_string(), "--format", "json"]);
        let mut json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        if let Some(digest) = json["policy"].get_mut("digest") {
            *digest = "DIGEST".into();
        }
        all += &format!("{}\n", serde_json::to_string_pretty(&json).expect("JSON"));
    }
    insta::assert_snapshot!(anonymous(&all, &directory));
}

#[test]
fn a_file_that_others_can_write_is_refused_unless_told() {
    let directory = Directory::new();
    let rules = directory.rules(CALLBACKS);
    fs::set_permissions(&rules, fs::Permissions::from_mode(0o666)).expect("it is ours");
    assert_eq!(run(&["check", &rules.display().to_string()]).0, 1);
    assert_eq!(run(&["check", &rules.display().to_string(), "--ignore-permissions"]).0, 0);
    assert_eq!(run(&["check", &directory.text("missing.yaml")]).0, 1);
}

#[test]
fn without_an_agent_is_exit_3() {
    let directory = Directory::new();
    for command in [&["status"][..], &["reload"], &["events"]] {
        let arguments: Vec<&str> = ["--runtime-dir", directory.path().to_str().expect("UTF-8")]
            .iter()
            .chain(command)
            .copied()
            .collect();
        let (code, stdout, stderr) = run(&arguments);
        assert_eq!((code, stdout.as_str()), (3, ""));
        insta::allow_duplicates! { insta::assert_snapshot!(anonymous(&stderr, &directory)) };
    }
}

#[test]
fn a_start_with_bad_rules_is_exit_1_and_leaves_nothing_behind() {
    let directory = Directory::new();
    let rules = directory.rules("version: 2\n");
    let (code, _, stderr) = run(&[
        "run",
        "--rules",
        &rules.display().to_string(),
        "--runtime-dir",
        &directory.text("run"),
        "--state-dir",
        &directory.text("state"),
        "--bpffs",
        &directory.text("bpf"),
    ]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("version"), "{stderr}");
    for made in ["run", "state", "bpf"] {
        assert!(!directory.path().join(made).exists(), "{made}");
    }
}

#[test]
fn a_start_while_a_file_is_written_is_exit_4_for_systemd_tries_again() {
    let directory = Directory::new();
    let rules = directory.rules(CALLBACKS);
    let writer = directory.path().join("written-in-place");
    fs::rename(&rules, &writer).expect("it is there");
    // By another process: what this one has open for writing, any child of another test may have for a moment.
    let mut download = Command::new("sh")
        .args(["-c", "cp \"$1\" \"$2\"; chmod 600 \"$2\"; exec 3>>\"$2\"; echo open; sleep 60", "-"])
        .args([&writer, &rules])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    download.stdout.as_mut().expect("piped").read_exact(&mut [0; 4]).expect("it says so");
    let mut start = mpesa_fw(&["run", "--metrics", "127.0.0.1:0", "--rules", &rules.display().to_string()]);
    for place in ["runtime-dir", "state-dir", "bpffs"] {
        start.arg(format!("--{place}")).arg(directory.path().join(place));
    }
    let (code, _, stderr) = said(start.output().expect("the program runs"));
    download.kill().expect("it runs");
    download.wait().expect("it ends");
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("is being changed"), "{stderr}");
}

#[test]
fn a_defect_is_exit_70_and_says_what_to_do() {
    if !fault::ARMED {
        return;
    }
    let directory = Directory::new();
    let rules = directory.rules(CALLBACKS);
    let orders = directory.path().join("orders");
    fs::write(&orders, "SocketBorn panic 1\n").expect("the directory can be written");
    let mut start = mpesa_fw(&["run", "--metrics", "127.0.0.1:0", "--rules", &rules.display().to_string()]);
    for place in ["runtime-dir", "state-dir", "bpffs"] {
        start.arg(format!("--{place}")).arg(directory.path().join(place));
    }
    let (code, stdout, stderr) =
        said(start.env(fault::VARIABLE, &orders).output().expect("the program runs"));
    assert_eq!((code, stdout.as_str()), (70, ""), "{stderr}");
    assert!(!orders.exists(), "the defect was reached");
    assert!(stderr.contains("a test asked for a defect"), "which it was: {stderr}");
    let last = stderr.split("error: ").last().expect("a message");
    insta::assert_snapshot!(last);
}

/// What a command says on a terminal, and its exit code. `script` (util-linux) makes the terminal.
fn on_a_terminal(arguments: &[&str], no_color: Option<&str>) -> String {
    let quoted: Vec<String> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
    let line = format!("'{}' {}", env!("CARGO_BIN_EXE_mpesa-fw"), quoted.join(" "));
    let mut script = Command::new("script");
    script.args(["--quiet", "--command", &line, "/dev/null"]).stdin(Stdio::null());
    script.env_remove("SSH_CONNECTION").env_remove("MPESA_FW_LOG").env_remove("JOURNAL_STREAM");
    script.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env("TERM", "xterm");
    if let Some(value) = no_color {
        script.env("NO_COLOR", value);
    }
    let output = script.output().expect("util-linux is on every Debian system");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn colours_are_for_terminals_and_for_who_wants_them() {
    let directory = Directory::new();
    let rules = directory.rules(CALLBACKS);
    let taken = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let [rules, run_dir, state, bpf] =
        [rules.display().to_string(), directory.text("run"), directory.text("state"), directory.text("bpf")];
    // Data, an error of the command line, and a log: of a start that ends because its port is taken.
    let start = [
        "run",
        "--rules",
        &rules,
        "--metrics",
        &address,
        "--runtime-dir",
        &run_dir,
        "--state-dir",
        &state,
        "--bpffs",
        &bpf,
    ];
    let coloured = |text: &str| text.contains('\x1b');
    for (command, says) in [(&["--help"][..], "Usage"), (&["explode"], "Usage"), (&start, "beyond this host")]
    {
        let on_terminal = on_a_terminal(command, None);
        assert!(
            on_terminal.contains(says) && !on_terminal.contains("panicked"),
            "{command:?}: {on_terminal}"
        );
        assert_eq!(coloured(&on_terminal), says == "Usage", "logs are plain: {on_terminal:?}");
        assert_eq!(
            coloured(&on_a_terminal(command, Some(""))),
            says == "Usage",
            "empty is not set (no-color.org)"
        );
        let plain = on_a_terminal(command, Some("1"));
        assert!(!coloured(&plain) && plain.contains(says), "{command:?}: {plain:?}");
        let mut piped = mpesa_fw(command);
        piped.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env("TERM", "xterm");
        let (_, stdout, stderr) = said(piped.output().expect("it runs"));
        let both = format!("{stdout}{stderr}");
        assert!(!coloured(&both) && both.contains(says), "{command:?}: {both:?}");
    }
}

#[test]
fn a_reader_that_has_gone_is_no_panic() {
    for command in [&["completions", "bash"][..], &["man"], &["--help"]] {
        let mut child =
            mpesa_fw(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
        let status = child.wait().expect("it ends");
        assert!(status.success() && stderr.is_empty(), "{command:?}: {status} {stderr}");
    }
    // The answer is what it is.
    let directory = tempfile::tempdir().expect("a directory");
    let rules = directory.path().join("rules.yaml");
    fs::write(&rules, "version: 3\n").expect("a file");
    let mut child = mpesa_fw(&["check", "--ignore-permissions", "--format", "json"])
        .arg(&rules)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
}

#[test]
fn pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).1.contains("mpesa-fw"), "{shell}");
    }
    assert!(run(&["man"]).1.contains(".TH mpesa-fw 8"));
    assert!(run(&["man", "reload"]).1.contains(r"\-\-force"));
    assert_eq!(run(&["man", "explode"]).0, 2);
}
