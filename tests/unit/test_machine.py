from fleetpulse.domain.machine import Machine


def test_each_machine_has_a_user_of_its_own() -> None:
    assert {machine.value: machine.user for machine in Machine} == {
        "broker": "admin",
        "producer": "producer",
        "consumer1": "consumer1",
        "consumer2": "consumer2",
        "monitor": "monitor",
    }
