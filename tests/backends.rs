//! One suite of assertions about backends, run on every one: both of the kernel's, where this
//! machine has them, and the simulator's.
//!
//! The kernel's use real sockets on loopback. Nothing depends on how long something takes: where a
//! datagram is awaited, the test waits in the backend itself and fails only after a generous
//! deadline. What differs between the worlds, binding a socket and letting time pass, is in `rig`.
//! `kernel_only` lists what cannot hold in the simulator, each with its reason.

#[path = "backends/capacity.rs"]
mod capacity;
#[path = "backends/lifetime.rs"]
mod lifetime;
#[path = "backends/refusal.rs"]
mod refusal;
#[path = "backends/rig.rs"]
mod rig;
#[path = "backends/transfer.rs"]
mod transfer;
#[path = "backends/waiting.rs"]
mod waiting;

use rig::{On, Rig};

/// An assertion is about an open backend, or opens its own as often as it likes.
trait Assertion<Argument> {
    fn check(self, on: On);
}

impl<F: FnOnce(&mut Rig)> Assertion<Rig> for F {
    fn check(self, on: On) {
        if let Some(mut rig) = Rig::open(on) {
            assert_eq!(rig.name(), on.name());
            self(&mut rig);
        }
    }
}

impl<F: FnOnce(On)> Assertion<On> for F {
    fn check(self, on: On) {
        self(on);
    }
}

fn check<A>(on: On, assertion: impl Assertion<A>) {
    assertion.check(on);
}

macro_rules! tests {
    ($on:expr; $($(#[$why:meta])* $module:ident::$test:ident,)*) => {$(
        $(#[$why])*
        #[test]
        fn $test() {
            check($on, $module::$test);
        }
    )*};
}

/// What holds on every backend.
macro_rules! everywhere {
    ($on:expr) => {
        tests! {
            $on;
            transfer::echo,
            transfer::ipv6_and_dual_stack,
            transfer::a_train_arrives_as_its_segments_in_order,
            transfer::without_segmentation_segments_leave_one_by_one,
            transfer::ecn_marks_arrive,
            transfer::a_wildcard_socket_replies_from_the_address_it_was_asked_at,
            transfer::empty_datagrams_are_counted_and_not_shown,
            transfer::empty_datagrams_among_trains_stop_nothing,
            transfer::a_sink_that_has_enough_gets_the_rest_later,
            transfer::what_is_sent_at_once_leaves_behind_what_was_queued,
            transfer::a_train_in_pieces_arrives_whole,
            transfer::a_train_in_pieces_leaves_behind_what_was_queued,
            refusal::what_the_network_refuses_is_counted_and_nothing_stops,
            refusal::what_is_refused_at_once_is_counted_and_nothing_stops,
            refusal::what_is_refused_in_pieces_is_counted_and_nothing_stops,
            refusal::a_send_on_an_unknown_socket_is_counted,
            capacity::send_buffers_run_out_and_come_back,
            capacity::more_trains_than_receive_buffers_all_arrive,
            capacity::a_burst_on_one_socket_leaves_the_other_able_to_send,
            capacity::many_sockets_take_turns,
            capacity::a_removed_socket_frees_its_port_and_its_place,
            capacity::the_table_of_sockets_is_bounded,
            waiting::an_arrival_ends_a_wait,
            waiting::an_idle_flush_makes_no_system_call,
            lifetime::a_backend_may_be_made_here_and_driven_there,
            lifetime::dropping_with_operations_in_flight_is_safe,
            lifetime::dropping_away_from_the_driving_thread_is_safe,
        }
    };
}

/// What holds on the kernel's backends alone, and why the simulator cannot have it.
macro_rules! kernel_only {
    ($on:expr) => {
        tests! {
            $on;
            /// The simulator has neither ICMP messages nor connected sockets: what reaches nobody
            /// is in its network's counters, and the sender hears nothing.
            refusal::an_icmp_error_on_a_connected_socket_is_counted_and_nothing_stops,
            /// Nor does it let sockets share an address.
            transfer::a_socket_beside_another_has_what_its_peer_sends,
            transfer::a_socket_beside_one_of_many_leaves_the_address_to_all,
            /// No thread sleeps in the simulator. `sim` below asserts what a wake does there.
            waiting::another_thread_ends_a_wait,
            /// Time is the driver's to move, so that `wait` does not let any pass.
            waiting::a_wait_times_out,
            /// Descriptors of the system become readable in the system's time.
            waiting::a_watched_descriptor_ends_a_wait_and_is_told_of,
            waiting::a_descriptor_that_is_watched_no_longer_ends_nothing,
        }
    };
}

mod mmsg {
    use super::*;
    everywhere!(On::Mmsg);
    kernel_only!(On::Mmsg);
}

mod uring {
    use super::*;
    everywhere!(On::Uring);
    kernel_only!(On::Uring);
}

mod sim {
    use super::*;
    everywhere!(On::Sim);
    tests! {
        On::Sim;
        waiting::a_simulated_wait_returns_at_once_and_moves_no_time,
        waiting::a_simulated_wake_leaves_a_mark_until_the_next_wait,
        refusal::a_simulated_backend_takes_no_socket_of_the_system,
    }
}
