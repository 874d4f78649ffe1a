"""A command that outlives its connection: followed, followed again, stopped, lost."""

import shutil

from tests.launch.checkout import HARD, script


def test_detached_command_is_followed_to_its_code(checkout):
    assert checkout.run("launch/detached.sh", "start", checkout.door, *HARD).returncode == 0
    for _ in range(2):  # whoever comes later learns the same
        done = checkout.run("launch/detached.sh", "follow")
        assert done.returncode == 75
        assert done.stdout.startswith("process  speaks\n")
        assert done.stdout.endswith(" ended with 75\n")
    assert checkout.arguments("") == HARD


def test_stop_lets_the_command_save(checkout):
    text = '#!/usr/bin/env bash\ntrap "echo saved; exit 75" TERM\necho begun\nwhile :; do sleep 0.1; done\n'
    waits = str(script(checkout.bin / "waits", text))
    checkout.run("launch/detached.sh", "start", waits)
    following = checkout.start("launch/detached.sh", "follow")
    assert following.stdout.readline() == "begun\n"
    # Starting again stops the earlier one first.
    done = checkout.run("launch/detached.sh", "start", "true")
    assert "asking the command of an earlier start to end" in done.stderr
    output, _ = following.communicate(timeout=30)
    assert "saved" in output
    assert checkout.run("launch/detached.sh", "follow").returncode == 0
    assert checkout.run("launch/detached.sh", "stop").stderr == ""


def test_machine_that_went_down_counts_as_preempted(checkout):
    checkout.run("launch/detached.sh", "start", "sleep", "600")
    group = (checkout.folder / "runs" / "detached" / "group").read_text().strip()
    checkout.run("bash", "-c", f"kill -KILL -- -{group}")
    assert checkout.run("launch/detached.sh", "follow").returncode == 75


def test_start_returns_once_the_command_can_be_stopped(checkout):
    real = shutil.which("setsid")
    script(checkout.bin / "setsid", f'#!/usr/bin/env bash\nsleep 0.5\nexec {real} "$@"\n')
    assert checkout.run("launch/detached.sh", "start", "sleep", "600").returncode == 0
    done = checkout.run("launch/detached.sh", "stop")
    assert "asking the command of an earlier start to end" in done.stderr
    assert "ended with 143" in checkout.run("launch/detached.sh", "follow").stdout


def test_command_that_cannot_start_is_said(checkout):
    script(checkout.bin / "setsid", "#!/usr/bin/env bash\necho no such call >&2\nexit 1\n")
    done = checkout.run("launch/detached.sh", "start", "true")
    assert (done.returncode, "the command did not start: no such call" in done.stderr) == (2, True)


def test_following_nothing_is_a_mistake(checkout):
    done = checkout.run("launch/detached.sh", "follow")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing was started here" in done.stderr
