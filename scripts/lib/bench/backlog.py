"""The main part: every contender and every floor on the same backlog, in rounds."""

import time

from bench import accounts, catchup, engine
from bench.job import Job
from bench.stats import number

PARTITIONS = 6
IDLE_S = 5


def idle(stand):
    """What ClickHouse uses while nobody asks anything of it: CPU seconds a second."""
    stand.clickhouse.wait_quiet()
    before = accounts.cpu_seconds(stand.clickhouse_pid)
    time.sleep(IDLE_S)
    return (accounts.cpu_seconds(stand.clickhouse_pid) - before) / IDLE_S


def job_of(stand, shape, rows, key, turn):
    return Job(shape, rows, f"t_{key}_{turn}", f"bench-{shape.name}-{key}-{turn}", (shape.topic,))


def choose_engine(stand, floors, contender, shape, rows):
    """Tries the engine's settings and keeps those with the most rows a CPU second and a second."""
    trials = []
    for turn, settings in enumerate(engine.TRIALS):
        contender.chosen = settings
        job = job_of(stand, shape, rows, "trial", turn)
        result = catchup.measure(stand, contender, job, floors.reference(shape, rows))
        stand.say(f"engine, trial {turn + 1}: {line(result)}")
        trials.append((settings, result))
    good = [trial for trial in trials if not trial[1].trouble]
    if good:
        contender.chosen = max(good, key=lambda trial: trial[1].rows_per_s / trial[1].total)[0]
    return trials


def rounds(stand, floors, found, shape):
    """Each in turn, and the next round begins with another one."""
    rows, count, contenders = found.rows, found.rounds, found.contenders
    expected = floors.reference(shape, rows)
    for turn in range(count):
        for floor in floors.measure(shape, rows):
            stand.say(f"{shape.name} {turn + 1}/{count}  {floor.name:<52} {floor_line(floor)}")
            found.floors.append(floor)
        shift = turn % max(len(contenders), 1)
        for contender in contenders[shift:] + contenders[:shift]:
            job = job_of(stand, shape, rows, contender.key, turn)
            if not contender.fits(job):
                continue
            result = catchup.measure(stand, contender, job, expected)
            stand.say(f"{shape.name} {turn + 1}/{count}  {contender.name:<52} {line(result)}")
            found.results.append(result)


def line(result):
    """For whoever watches."""
    if result.trouble:
        return result.trouble
    return (
        f"{number(result.rows_per_s, 0):>9} rows/s  CPU s/M: bridge {number(result.bridge)}, "
        f"ClickHouse {number(result.clickhouse)}, broker {number(result.broker)}; "
        f"{number(result.peak_mib, 0)} MiB, {number(result.rows_per_insert, 0)} rows an insert"
    )


def floor_line(floor):
    return floor.trouble or f"{number(floor.rows_per_s, 0):>9} rows/s  CPU s/M {number(floor.cpu)}"
