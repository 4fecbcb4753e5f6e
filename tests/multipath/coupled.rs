//! Coupled congestion control in whole connections: two paths through one bottleneck take what one
//! flow would, and through two they carry the sum.

use crate::common::pair::CLIENT;
use crate::links::{Lab, Link, Net};
use corelane::base::Rng;
use corelane::recovery::Algorithm;

const COUPLED: [Algorithm; 3] = [Algorithm::Lia, Algorithm::Olia, Algorithm::Balia];
const SEEDS: u64 = 3;

fn link(mbps: u64, delay_ms: u64, seed: u64) -> Link {
    let mut link = Link::new(mbps, delay_ms);
    link.early = Some(Rng::from_u64(seed));
    link
}

/// What a connection of two paths gets of a bottleneck that it shares with one of a single path.
fn share(algorithm: Algorithm) -> f64 {
    let (mut two, mut one) = (0.0, 0.0);
    for seed in 0..SEEDS {
        let mut net = Net::new(&[link(16, 30, seed)]);
        net.by = [0, 0];
        let mut lab = Lab::new(net, |c| c.congestion = algorithm);
        let other = lab.connect();
        lab.flow(CLIENT);
        lab.flow_of(other, CLIENT);
        lab.run_ms(5000);
        let rates = lab.rates(40_000);
        two += rates[0];
        one += rates[1];
        assert!(rates[0] + rates[1] > 14.0, "the link is used: {rates:?}");
        lab.rig.expect_alive();
    }
    2.0 * two / (two + one)
}

#[test]
fn a_shared_bottleneck_is_shared_fairly() {
    for algorithm in COUPLED {
        let share = share(algorithm);
        assert!(
            (0.85..1.15).contains(&share),
            "{algorithm:?}: {share} of a flow's share"
        );
    }
    // Two controllers that know nothing of each other take what two flows would.
    let share = share(Algorithm::NewReno);
    assert!(share > 1.2, "uncoupled: {share}");
}

#[test]
fn disjoint_paths_are_added_up() {
    for algorithm in COUPLED {
        for delays in [[20, 20], [10, 40]] {
            let links = [0, 1].map(|n| link(10, delays[n], 7 + n as u64));
            let mut lab = Lab::new(Net::new(&links), |c| c.congestion = algorithm);
            lab.flow(CLIENT);
            lab.run_ms(5000);
            let rate = lab.rates(20_000)[0];
            assert!(
                rate > 16.0,
                "{algorithm:?} over {delays:?} ms: {rate} of 20 Mbit/s"
            );
            lab.rig.expect_alive();
        }
    }
}
