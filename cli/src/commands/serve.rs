//! `lowrank serve`: a page to try a model, and an API.

use super::adapted::{Adapted, AdaptedArgs};
use super::common::{Outcome, count, say, user_cache};
use super::notes::{note, warning};
use super::signals::{asked_to_stop, catch_signals};
use crate::serve::{Facts, Options, Served, serve};
use clap::{ArgMatches, Args, FromArgMatches};
use lowrank::{Error, Result};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Arguments of `serve`.
#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    adapted: Models,
    #[command(flatten)]
    place: PlaceArgs,
    /// Address to bind. Without --token, only this machine may reach it (127.0.0.1, ::1)
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// What requests must show, as `Authorization: Bearer TOKEN` [default: LOWRANK_TOKEN, which other users of the machine cannot read]
    #[arg(long)]
    token: Option<String>,
    /// Most requests that wait for an answer; the next one is answered 429
    #[arg(long, value_name = "N", default_value_t = WAITING, value_parser = count::<65536>)]
    max_concurrent_requests: usize,
    /// Cut texts that are too long, if a request does not say what to do; without this they are answered 413
    #[arg(long)]
    auto_truncate: bool,
    /// Follow the training run that writes this folder
    #[arg(long, value_name = "OUT")]
    watch: Option<PathBuf>,
}

/// The arguments of a model, if one is given. (clap's derive cannot make a group optional if it contains another group.)
struct Models(Option<AdaptedArgs>);

impl FromArgMatches for Models {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Models, clap::Error> {
        let given = matches.contains_id("model");
        Ok(Models(given.then(|| AdaptedArgs::from_arg_matches(matches)).transpose()?))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Models::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Models {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = AdaptedArgs::augment_args(command).mut_arg("model", |model| model.required(false));
        // These arguments have no meaning without a model.
        ["adapter", "rank", "any_base", "lenient", "raw", "max_length", "truncate", "windows", "dtype", "device"]
            .into_iter()
            .fold(command, |command, id| command.mut_arg(id, |arg| arg.requires("model")))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Models::augment_args(command)
    }
}

/// Where the page is.
#[derive(Args)]
pub struct PlaceArgs {
    /// Port; 0 takes any free one [default: 7878]
    #[arg(long)]
    pub port: Option<u16>,
    /// Open the page in the browser
    #[arg(long)]
    pub open: bool,
}

/// A port that no well-known service has.
const PORT: u16 = 7878;

/// Most requests that wait.
const WAITING: usize = 512;

impl Serve {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let variable = || std::env::var_os("LOWRANK_TOKEN").map(|token| token.to_string_lossy().into_owned());
        let token = self.token.or_else(variable);
        if !self.host.is_loopback() && token.is_none() {
            let problem = "others can reach this address: give a --token that they must show, or leave --host out";
            return Err(Error::invalid(format!("--host {}: {problem}", self.host)));
        }
        if token.as_ref().is_some_and(|token| token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::invalid("--token or LOWRANK_TOKEN: expected ASCII characters without spaces"));
        }
        if self.adapted.0.is_none() && self.watch.is_none() {
            return Err(Error::invalid("serve: give a --model to try, or a run to --watch, or both"));
        }
        let (models, base, dtype) = match &self.adapted.0 {
            Some(adapted) => (adapted.open(user_cache().as_deref())?, Some(adapted.base().to_path_buf()), adapted.dtype()),
            None => (Vec::new(), None, String::new()),
        };
        let options = Options {
            address: self.host,
            port: self.place.port.unwrap_or(PORT),
            token,
            waiting: self.max_concurrent_requests,
            auto_truncate: self.auto_truncate,
            dtype,
            base,
            watch: self.watch,
        };
        run(models, options, self.place.open)
    }
}

/// Serves the models until a signal asks to stop.
pub(super) fn run(models: Vec<Adapted>, options: Options, open: bool) -> Result<Outcome> {
    if let Some(pairs) = models.iter().find(|model| model.about.as_ref().is_some_and(|about| about.pairs)) {
        let problem = "was trained on pairs of texts, and only single texts are served: predict answers pairs from a table";
        return Err(Error::invalid(format!("{}: {problem}", pairs.name)));
    }
    let models: Vec<Served> = models.into_iter().map(served).collect();
    if let Some((_, twice)) = models.iter().enumerate().find(|(i, m)| models[..*i].iter().any(|other| other.facts.name == m.facts.name)) {
        return Err(Error::invalid(format!("--adapter: two have the name {:?}: give them names with NAME=DIR", twice.facts.name)));
    }
    catch_signals()?;
    let ready = |url: &str| {
        say(url)?;
        note!("Ctrl-C ends it");
        match url.split_once("#token=") {
            Some(_) if open => warning!("--open: the program that opens it would show the token to other users: open the address above"),
            _ if open => open_browser(url),
            _ => {}
        }
        Ok(())
    };
    serve(&models, options, ready, asked_to_stop)?;
    note!("ended");
    Ok(Outcome::Done)
}

/// On the demo's adapters: see `demo.rs`.
pub(super) fn on(adapted: &AdaptedArgs, place: &PlaceArgs) -> Result<Outcome> {
    let options = Options {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: place.port.unwrap_or(PORT),
        token: None,
        waiting: WAITING,
        auto_truncate: true,
        dtype: adapted.dtype(),
        base: Some(adapted.base().to_path_buf()),
        watch: None,
    };
    run(adapted.open(user_cache().as_deref())?, options, place.open)
}

fn served(adapted: Adapted) -> Served {
    let Adapted { name, model, wordpiece, labels, outputs, temperature, cut, .. } = adapted;
    let (layers, heads) = (model.config.n_layers, model.config.n_heads);
    Served { facts: Facts { name, wordpiece, labels, outputs, temperature, cut, layers, heads }, model }
}

/// Opens the page. A machine without a browser is no error: the address is printed.
fn open_browser(url: &str) {
    let (program, arguments): (_, &[&str]) = match std::env::consts::OS {
        "macos" => ("open", &[]),
        "windows" => ("rundll32", &["url.dll,FileProtocolHandler"]),
        _ => ("xdg-open", &[]),
    };
    let started = Command::new(program).args(arguments).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    match started {
        // Waits for the program, so that the system can forget it.
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(e) => warning!("--open: {program}: {e}: open the address above"),
    }
}
