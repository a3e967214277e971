//! The relay on the command line.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};

use super::link_options::{LinkCounts, LinkError, LinkOptions};
use super::options::{Direction, RelayCounts, RelayError, RelayOptions};
use super::service::Relay;
use crate::measure::process;
use crate::seconds::seconds;

/// How often the log says what was done.
const SUMMARY: Duration = Duration::from_secs(5);

const CONTROL: &str = "\
Clients use the relay's URL instead of the server's: http://127.0.0.1:9000/whep/STREAM, or a page of the server there.
Over HTTP everything but an upgrade passes; in SDP the server's UDP candidates become ports of the relay, and those over TCP are left out.
Every client address has a link of its own. Publishers and viewers on different links need a relay each.

While it runs, the relay's HTTP port answers on:
  POST /relay/link    JSON: {\"both\": {\"loss\": 5}, \"up\": {\"rate\": 500}, \"down\": {\"keep-order\": false}}; the names are those
                      of the options, what is not named stays, and the answer is the links as they are then
  GET  /relay/link    the links
  GET  /relay/counts  what was done, by direction and cause
  POST /relay/rebind  gives every client another port towards the server, now

Examples:
  sluice-loadtest relay --target http://127.0.0.1:8080 --loss 5 --delay 50 --jitter 10
  sluice-loadtest relay --target http://127.0.0.1:8080 --down-rate 1250 --queue 200 --rebind-every 20
";

/// One option of a link, with its names for both directions and for each.
struct Setting {
    names: [&'static str; 3],
    unit: &'static str,
    help: &'static str,
}

macro_rules! setting {
    ($name:literal, $unit:literal, $help:literal) => {
        Setting { names: [$name, concat!("up-", $name), concat!("down-", $name)], unit: $unit, help: $help }
    };
}

/// All options of [`LinkOptions`] but `keep-order`, which is no number.
const NUMBERS: [Setting; 12] = [
    setting!("loss", "PERCENT", "Datagrams lost at random"),
    setting!("burst-enter", "PERCENT", "Datagrams with which a burst of losses begins (Gilbert-Elliott)"),
    setting!("burst-leave", "PERCENT", "Datagrams of a burst with which it is over [default: 25]"),
    setting!("burst-loss", "PERCENT", "Datagrams lost while a burst lasts [default: 100]"),
    setting!("delay", "MS", "How long every datagram travels"),
    setting!("jitter", "MS", "Up to so much is added to the delay"),
    setting!("reorder", "PERCENT", "Datagrams that travel longer than the others and are overtaken"),
    setting!("reorder-delay", "MS", "How much longer they travel [default: 10]"),
    setting!("duplicate", "PERCENT", "Datagrams that arrive twice"),
    setting!("rate", "KBIT/S", "What a bottleneck carries, IP and UDP headers included [default: no bottleneck]"),
    setting!("queue", "MS", "Longest wait in front of the bottleneck; who would wait longer is dropped [default: 300]"),
    setting!("queue-bytes", "BYTES", "Bytes that wait in front of the bottleneck at most [default: no such bound]"),
];

const KEEP_ORDER: Setting =
    setting!("keep-order", "BOOL", "Whether jitter alone lets no datagram overtake another [default: true]");

/// The command line.
#[derive(Args, Debug)]
#[command(after_help = CONTROL)]
pub struct RelayArgs {
    /// Where clients reach the relay over HTTP; its UDP ports are opened on the same address
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// The server: http://HOST[:PORT] or https://HOST[:PORT]
    #[arg(long, value_name = "URL")]
    target: String,
    /// Address that stands in candidates; that of --listen if not given
    #[arg(long, value_name = "IP")]
    media_ip: Option<IpAddr>,
    /// Give every client another port towards the server every so many seconds, as a NAT does that forgets
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    rebind_every: Option<Duration>,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Client addresses at one time; the datagrams of others are dropped
    #[arg(long, default_value_t = 1024)]
    max_flows: usize,
    #[command(flatten)]
    links: LinkArgs,
}

/// The options of both links.
#[derive(Clone, Copy, Debug)]
struct LinkArgs {
    up: LinkOptions,
    down: LinkOptions,
}

impl Args for LinkArgs {
    fn augment_args(command: Command) -> Command {
        let heading = "Link (each option also as --up-… and --down-… for one direction, which win)";
        let mut command = command.next_help_heading(heading);
        for setting in NUMBERS.iter().chain([&KEEP_ORDER]) {
            for (direction, name) in setting.names.into_iter().enumerate() {
                let arg = Arg::new(name).long(name).value_name(setting.unit).help(setting.help);
                let arg = arg.action(ArgAction::Set).hide(direction > 0);
                command = command.arg(if setting.names == KEEP_ORDER.names {
                    arg.value_parser(value_parser!(bool))
                } else {
                    arg.value_parser(value_parser!(f64))
                });
            }
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        LinkArgs::augment_args(command)
    }
}

impl FromArgMatches for LinkArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<LinkArgs, clap::Error> {
        // Of both directions, of the way up, of the way down.
        let said = [0, 1, 2].map(|direction| {
            let key = |setting: &Setting| setting.names[0].to_owned();
            let number = |setting: &Setting| {
                let value = *matches.get_one::<f64>(setting.names[direction])?;
                // Bytes are whole, and JSON tells 4000 from 4000.0.
                let whole = value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value);
                Some((key(setting), if whole { Value::from(value as u32) } else { Value::from(value) }))
            };
            let order = matches.get_one::<bool>(KEEP_ORDER.names[direction]);
            let order = order.map(|&order| (key(&KEEP_ORDER), Value::from(order)));
            NUMBERS.iter().filter_map(number).chain(order).collect::<Map<String, Value>>()
        });
        let [both, up, down] = said;
        let wrong = |error: LinkError| clap::Error::raw(ErrorKind::ValueValidation, error.to_string());
        let base = LinkOptions::default().changed(&both).map_err(wrong)?;
        Ok(LinkArgs { up: base.changed(&up).map_err(wrong)?, down: base.changed(&down).map_err(wrong)? })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = LinkArgs::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs the relay until the process is interrupted or told to end, and prints what it did.
///
/// # Errors
/// As [`Relay::start`], and if signals cannot be received.
pub fn command(args: &RelayArgs) -> Result<(), RelayError> {
    let options = RelayOptions {
        listen: args.listen,
        target: args.target.clone(),
        media_ip: args.media_ip,
        up: args.links.up,
        down: args.links.down,
        rebind_every: args.rebind_every,
        seed: args.seed,
        max_flows: args.max_flows,
    };
    // A socket a client address; without more of them some are refused, and counted.
    let _ = process::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let relay = Relay::start(options)?;
        println!("relay: use {} in place of {}", relay.url(), args.target.trim_end_matches('/'));
        for (name, direction) in [("up", Direction::Up), ("down", Direction::Down)] {
            // Options are numbers and a truth value, which JSON can say.
            tracing::info!("{name}: {}", serde_json::to_string(&relay.link(direction)).unwrap_or_default());
        }
        let mut summary = tokio::time::interval(SUMMARY);
        let mut last_passed = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = summary.tick() => {
                    let counts = relay.counts();
                    let passed = counts.up.received + counts.down.received;
                    if std::mem::replace(&mut last_passed, passed) != passed {
                        tracing::info!("{} clients; up: {}; down: {}", counts.flows, line(&counts.up), line(&counts.down));
                    }
                }
            }
        }
        println!("{}", table(&relay.stop()));
        Ok(())
    })
}

fn line(counts: &LinkCounts) -> String {
    let LinkCounts { received, forwarded, dropped_by_queue, longest_queue_us, .. } = counts;
    let lost = counts.lost + counts.lost_in_bursts;
    let queue = *longest_queue_us as f64 / 1000.0;
    format!(
        "{received} received, {forwarded} forwarded, {lost} lost, {dropped_by_queue} dropped by the queue (longest wait {queue:.0} ms)"
    )
}

fn table(counts: &RelayCounts) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(["datagrams", "up", "down"]);
    let mut row = |name: &str, value: fn(&LinkCounts) -> String| {
        table.add_row([name.to_owned(), value(&counts.up), value(&counts.down)]);
    };
    row("received", |link| link.received.to_string());
    row("lost at random", |link| link.lost.to_string());
    row("lost in bursts", |link| link.lost_in_bursts.to_string());
    row("dropped by the queue", |link| link.dropped_by_queue.to_string());
    row("dropped by the relay's own limit", |link| link.overflowed.to_string());
    row("forwarded", |link| link.forwarded.to_string());
    row("of them twice", |link| link.duplicated.to_string());
    row("of them overtaken", |link| link.reordered.to_string());
    row("kbytes forwarded", |link| (link.forwarded_bytes / 1000).to_string());
    row("mean wait in the queue, ms", |link| {
        let passed = link.received.saturating_sub(link.dropped_by_queue).max(1);
        format!("{:.1}", link.queued_us as f64 / 1000.0 / passed as f64)
    });
    row("longest wait in the queue, ms", |link| format!("{:.1}", link.longest_queue_us as f64 / 1000.0));
    let mut whole = |name: &str, value: u64| {
        table.add_row([name.to_owned(), value.to_string(), String::new()]);
    };
    whole("client addresses", counts.flows_opened);
    whole("changes of a port", counts.rebound);
    whole("refused, too many clients", counts.refused);
    whole("missed by the relay's sockets", counts.overflowed);
    whole("refused by the system", counts.unsent);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        relay: RelayArgs,
    }

    fn parse(args: &[&str]) -> Result<LinkArgs, clap::Error> {
        Cli::try_parse_from(["relay", "--target", "http://h"].iter().chain(args)).map(|cli| cli.relay.links)
    }

    #[test]
    fn options_of_one_direction_win() {
        let args = ["--loss", "5", "--down-loss", "2.5", "--up-rate", "500", "--up-queue-bytes", "4000"];
        let links = parse(&args).unwrap();
        let base = LinkOptions { loss: 5.0, ..LinkOptions::default() };
        assert_eq!(links.up, LinkOptions { rate: 500.0, queue_bytes: 4000, ..base });
        assert_eq!(links.down, LinkOptions { loss: 2.5, ..base });
        let links = parse(&["--keep-order", "false", "--up-keep-order", "true"]).unwrap();
        assert_eq!((links.up.keep_order, links.down.keep_order), (true, false));
    }

    #[test]
    fn every_option_of_a_link_has_its_name_and_its_default_is_that_of_the_link() {
        let Value::Object(fields) = serde_json::to_value(LinkOptions::default()).unwrap() else { panic!("no object") };
        let mut names: Vec<_> =
            NUMBERS.iter().chain([&KEEP_ORDER]).map(|setting| setting.names[0].to_owned()).collect();
        names.sort();
        assert_eq!(names, fields.keys().cloned().collect::<Vec<_>>());
        let links = parse(&[]).unwrap();
        assert_eq!((links.up, links.down), (LinkOptions::default(), LinkOptions::default()));
        for setting in &NUMBERS {
            let default = fields[setting.names[0]].as_f64().unwrap();
            assert!(default == 0.0 || setting.help.ends_with(&format!("[default: {default}]")), "{}", setting.help);
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        for wrong in [["--loss", "101"], ["--up-delay", "-1"], ["--rate", "x"], ["--queue-bytes", "1.5"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
