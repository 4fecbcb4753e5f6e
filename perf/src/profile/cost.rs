//! Sums of samples, as shares of the CPU time that each side used, for each packet.

use super::Window;
use corelane_steps::layer::{Layer, Place};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write;

/// Who spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The thread that connected.
    Client,
    /// The thread that was connected to.
    Server,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// By the names that `corelane bench` gives its threads.
    pub fn of_thread(name: &str) -> Option<Self> {
        match name.split('-').next()? {
            "client" => Some(Self::Client),
            "server" => Some(Self::Server),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// One sample's worth of time.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Who spent it.
    pub side: Side,
    /// Where.
    pub place: Place,
}

/// Which places are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Functions.
    Function,
    /// Lines of source.
    Line,
}

/// Where the time of a window went.
#[derive(Clone, Debug)]
pub struct Profile {
    window: Window,
    costs: Vec<Cost>,
}

impl Profile {
    /// The samples of a window, and the time that they stand for.
    pub fn new(window: Window, costs: Vec<Cost>) -> Self {
        Self { window, costs }
    }

    fn samples(&self, side: Side) -> usize {
        self.costs.iter().filter(|c| c.side == side).count()
    }

    /// Nanoseconds for each packet that so many samples of a side stand for.
    fn ns(&self, side: Side, samples: usize) -> f64 {
        let all = match side {
            Side::Client => self.window.client_ns,
            Side::Server => self.window.server_ns,
        };
        let share = samples as f64 / self.samples(side).max(1) as f64;
        all * share / self.window.units.max(1.0)
    }

    fn layer(&self, side: Side, layer: Layer) -> f64 {
        let of = self.costs.iter();
        let of = of.filter(|c| c.side == side && c.place.layer == layer);
        self.ns(side, of.count())
    }

    /// Layers as rows, sides as columns.
    pub fn layers(&self) -> String {
        let mut out = format!(
            "| ns per {} | client | server |\n|---|---:|---:|\n",
            self.window.unit
        );
        for layer in Layer::ALL {
            let [client, server] = Side::BOTH.map(|side| self.layer(side, layer));
            if client + server > 0.0 {
                let _ = writeln!(out, "| {layer} | {client:.1} | {server:.1} |");
            }
        }
        let [client, server] = Side::BOTH.map(|side| self.ns(side, self.samples(side)));
        let _ = writeln!(out, "| **all** | {client:.1} | {server:.1} |");
        out
    }

    /// The `n` most expensive places of one side with their nanoseconds.
    fn top(&self, side: Side, by: By, n: usize) -> Vec<(Layer, &str, f64)> {
        let mut sums: HashMap<(Layer, &str), usize> = HashMap::new();
        for cost in self.costs.iter().filter(|c| c.side == side) {
            let name = match by {
                By::Line if !cost.place.line.is_empty() => &cost.place.line,
                _ => &cost.place.function,
            };
            *sums.entry((cost.place.layer, name)).or_default() += 1;
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(key, samples)| (usize::MAX - samples, *key));
        let top = sums.into_iter().take(n);
        top.map(|((layer, name), samples)| (layer, name, self.ns(side, samples)))
            .collect()
    }

    /// The `n` most expensive places of each side, as tables.
    pub fn places(&self, by: By, n: usize) -> String {
        let mut out = String::new();
        for side in Side::BOTH {
            let _ = writeln!(out, "| {} ns | layer | |\n|---:|---|---|", side.name());
            for (layer, name, ns) in self.top(side, by, n) {
                let _ = writeln!(out, "| {ns:.1} | {layer} | {name} |");
            }
            out.push('\n');
        }
        out
    }

    /// Everything as JSON, with the `n` most expensive functions and lines.
    pub fn json(&self, n: usize) -> Value {
        let side = |side: Side| {
            let layers = Layer::ALL.map(|l| (l.name().to_string(), json!(self.layer(side, l))));
            let top = |by| {
                let top = self.top(side, by, n).into_iter();
                top.map(|(layer, name, ns)| json!({"layer": layer.name(), "name": name, "ns": ns}))
                    .collect::<Vec<_>>()
            };
            json!({
                "samples": self.samples(side),
                "ns": self.ns(side, self.samples(side)),
                "layers": Value::Object(layers.into_iter().collect()),
                "functions": top(By::Function),
                "lines": top(By::Line),
            })
        };
        json!({
            "unit": self.window.unit,
            "units": self.window.units,
            "client": side(Side::Client),
            "server": side(Side::Server),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        let cost = |side, layer, function: &str| Cost {
            side,
            place: Place {
                layer,
                function: function.into(),
                line: String::new(),
            },
        };
        let window = Window {
            unit: "packet",
            units: 10.0,
            client_ns: 4_000.0,
            server_ns: 1_000.0,
        };
        Profile::new(
            window,
            vec![
                cost(Side::Client, Layer::Aead, "seal"),
                cost(Side::Client, Layer::Aead, "seal"),
                cost(Side::Client, Layer::Aead, "nonce"),
                cost(Side::Client, Layer::Conn, "fill"),
                cost(Side::Server, Layer::Kernel, "copy"),
            ],
        )
    }

    #[test]
    fn samples_share_the_time_of_their_side() {
        assert_eq!(
            profile().layers(),
            "| ns per packet | client | server |\n|---|---:|---:|\n| kernel | 0.0 | 100.0 |\n\
             | aead | 300.0 | 0.0 |\n| conn | 100.0 | 0.0 |\n| **all** | 400.0 | 100.0 |\n"
        );
        let json = profile().json(1);
        assert_eq!(json["client"]["layers"]["aead"], 300.0);
        assert_eq!(json["client"]["functions"][0]["name"], "seal");
    }

    #[test]
    fn the_most_expensive_come_first() {
        let profile = profile();
        let top = profile.top(Side::Client, By::Line, 2);
        assert_eq!(top[0], (Layer::Aead, "seal", 200.0));
        assert_eq!(top.len(), 2);
    }

    #[test]
    fn threads_tell_their_side() {
        assert_eq!(Side::of_thread("client-0"), Some(Side::Client));
        assert_eq!(Side::of_thread("server-1"), Some(Side::Server));
        assert_eq!(Side::of_thread("corelane"), None);
    }
}
