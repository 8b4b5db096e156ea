//! Debian's kernels: fetched by apt with sources and state of its own, so that the machine's are left alone, and
//! unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::release::Release;
use super::{base, image};
use crate::deb;
use crate::process::{capture, run};

/// The package that depends on the newest image of a suite.
const META: &str = "linux-image-cloud-amd64";
/// What the suites are signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel, ready to boot.
pub(crate) struct Kernel {
    /// What `uname -r` will say.
    pub(crate) name: String,
    /// The kernel itself.
    pub(crate) image: PathBuf,
    /// A cpio archive of its modules.
    pub(crate) modules: PathBuf,
}

/// Fetches and unpacks the kernel, unless that was done before.
pub(crate) fn kernel(release: Release, directory: &Path) -> Result<Kernel> {
    let modules = directory.join("modules.cpio");
    if !modules.is_file() {
        fetch(release, directory)?;
        let root = directory.join("root");
        let name = name(&root)?;
        run(Command::new("/sbin/depmod").arg("--basedir").arg(&root).arg(&name))?;
        image::pack_modules(&root, &modules)?;
    }
    let root = directory.join("root");
    let name = name(&root)?;
    let places =
        [root.join(format!("boot/vmlinuz-{name}")), root.join(format!("lib/modules/{name}/vmlinuz"))];
    let Some(image) = places.into_iter().find(|place| place.is_file()) else {
        bail!(
            "the packages of Linux {release} hold no vmlinuz of {name}; remove {} and try again",
            directory.display()
        );
    };
    Ok(Kernel { name, image, modules })
}

/// What the kernel in this root calls itself.
fn name(root: &Path) -> Result<String> {
    let directory = root.join("lib/modules");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let names: Vec<_> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    match names.as_slice() {
        [name] => Ok(name.clone()),
        _ => bail!("{} is to hold the modules of one kernel, but holds {names:?}", directory.display()),
    }
}

fn fetch(release: Release, directory: &Path) -> Result<()> {
    println!("fetching Linux {release} ({})", release.suite());
    let apt = Apt::new(release)?;
    let described = capture(apt.command("apt-cache").args(["depends", "--important", META]))?;
    let image = dependencies(&described)
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{META} of {} depends on no image: {described}", release.suite()))?
        .to_owned();
    if !image.starts_with(&format!("linux-image-{}.", release.version())) {
        bail!("{} has {image} now, not Linux {release}", release.suite());
    }
    // Newer packages are in parts: the image's own dependencies of the same version.
    let suffix = image.trim_start_matches("linux-image-");
    let described = capture(apt.command("apt-cache").args(["depends", "--important", &image]))?;
    let mut packages: Vec<&str> = dependencies(&described)
        .filter(|name| {
            name.ends_with(suffix)
                && ["linux-binary-", "linux-modules-"].iter().any(|part| name.starts_with(part))
        })
        .collect();
    packages.push(&image);

    let root = directory.join("root");
    let unpacked = directory.join("root.partial");
    for old in [&root, &unpacked] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    let downloads = tempfile::tempdir_in(directory).context("cannot make a directory for downloads")?;
    run(apt.command("apt-get").args(["download", "-qq"]).args(&packages).current_dir(downloads.path()))?;
    for entry in fs::read_dir(downloads.path()).context("cannot read the downloads")? {
        let package = entry.context("cannot read the downloads")?.path();
        run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&unpacked))?;
    }
    // The newer ones are for a merged /usr.
    let merged = unpacked.join("usr/lib/modules");
    if merged.is_dir() {
        fs::create_dir_all(unpacked.join("lib")).context("cannot make a directory for modules")?;
        fs::rename(&merged, unpacked.join("lib/modules")).context("cannot move the modules")?;
    }
    fs::rename(&unpacked, &root).context("cannot rename the unpacked packages")
}

fn dependencies(described: &str) -> impl Iterator<Item = &str> {
    described.lines().filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends: "))
}

/// apt with one suite, and everything that it writes below `target/`.
struct Apt {
    settings: PathBuf,
}

impl Apt {
    fn new(release: Release) -> Result<Self> {
        let directory = base().join("apt").join(release.suite());
        for below in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(below)).context("cannot make the directories of apt")?;
        }
        let mirror = deb::mirror()?;
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        let sources =
            write("sources.list", format!("deb [signed-by={KEYRING}] {mirror} {} main\n", release.suite()))?;
        let status = write("status", String::new())?;
        let settings = write(
            "apt.conf",
            format!(
                "Dir::State \"{0}/state\";\nDir::State::status \"{1}\";\nDir::Cache \"{0}/cache\";\n\
                 Dir::Etc::SourceList \"{2}\";\nDir::Etc::SourceParts \"/dev/null\";\n\
                 APT::Sandbox::User \"root\";\nAPT::Architecture \"amd64\";\nAcquire::Languages \"none\";\n\
                 Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n",
                directory.display(),
                status.display(),
                sources.display()
            ),
        )?;
        let apt = Self { settings };
        run(apt.command("apt-get").args(["update", "-qq"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.settings);
        command
    }
}
