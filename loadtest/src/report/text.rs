//! The report as text.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::attack::{ATTACK_HEADER, attack_row};
use super::outcome::Outcome;
use super::summary::{PHASE_HEADER, Report, TIMES_HEADER, phase_row};

impl Report {
    /// The report as text of several lines.
    pub fn to_table(&self) -> String {
        let mut packets = table(&["packets", "audio", "video", "all"]);
        for (name, values) in self.packets() {
            packets.add_row(std::iter::once(Cell::new(name)).chain(values.map(|value| number(value.to_string()))));
        }
        let mut times = table(&[&["ms"], &TIMES_HEADER[..]].concat());
        for (name, _, values) in self.times() {
            times.add_row(std::iter::once(Cell::new(name)).chain(values.map(number)));
        }
        let mut text = format!(
            "publishers {}/{}   viewers {}/{}, intact {}   {:.1} s   {:.1} Mbit/s received\n\n{packets}\n\n{times}\n\n",
            self.publishers_connected,
            self.publishers,
            self.viewers_connected,
            self.viewers,
            self.viewers_intact,
            self.seconds,
            self.received_mbit_per_second,
        );
        if self.phases.len() > 1 {
            let mut phases = table(&PHASE_HEADER);
            for phase in &self.phases {
                let mut cells = phase_row(phase).into_iter();
                let name = Cell::new(cells.next().unwrap_or_default());
                phases.add_row(std::iter::once(name).chain(cells.map(number)));
            }
            text += &format!("{phases}\n\n");
        }
        if let Outcome::Attack(figures) = &self.outcome {
            let mut attacks = table(&ATTACK_HEADER);
            for row in &figures.attacks {
                let mut cells = attack_row(row).into_iter();
                let name = Cell::new(cells.next().unwrap_or_default());
                attacks.add_row(std::iter::once(name).chain(cells.map(number)));
            }
            text += &format!("{attacks}\n\n");
        }
        if let Outcome::Layers(figures) = &self.outcome {
            let mut layers = Table::new();
            layers.load_preset(presets::NOTHING).set_header(figures.header());
            for row in figures.rows() {
                let mut cells = row.into_iter();
                let name = Cell::new(cells.next().unwrap_or_default());
                layers.add_row(std::iter::once(name).chain(cells.map(number)));
            }
            text += &format!("{layers}\n\n");
        }
        text + &self.findings().join("\n")
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}
