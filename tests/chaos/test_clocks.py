"""consumer1 on machines whose clock is wrong: the rows are the messages' own."""

from pathlib import Path

import pytest
from consumer_case import ConsumerCase

from chaos_table import Row
from fleetpulse.edges.kafka.address import free_port

STEPS = 20
CLOCKS = (str(3 * 86_400), str(-86_400), "frozen")
END_S = 60.0


@pytest.mark.timeout(300)
def test_a_wrong_clock_changes_no_row_and_delays_no_end(
    broker_port: int, place: Path, row: Row
) -> None:
    row.fault, row.injected = "clock +3 d, -1 d, frozen", 0
    case = ConsumerCase.on(broker_port, place, row)
    case.create()
    script = str(Path(__file__).with_name("wrong_clock.py"))
    nobody = case.fleet.but(broker={"port": free_port()}).settings
    for number, clock in enumerate(CLOCKS):
        case.start = (script, clock, "fleetpulse")
        case.send_steps(number * STEPS, STEPS)
        # It commits while it runs, and ends when it is told to.
        with case.running() as process:
            case.await_growth()
            process.terminate()
            assert process.wait(END_S) == 0, case.said()
        # It finds that nothing more comes, and that nobody answers.
        assert case.run() == 0, case.said()
        with case.running("--connect-timeout", "1s", settings=nobody) as process:
            assert process.wait(END_S) == 69, case.said()
        row.injected += 1
    case.finish()
    case.check()
