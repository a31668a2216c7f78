"""CPU_MEM.csv by DuckDB, in one statement. `duckdb_windows.py CPU MEM OUT`."""

import sys

import duckdb

QUERY = """
COPY (
  WITH samples AS (
    SELECT ts, server_id, round(cpu_pct * 1e6)::BIGINT AS cpu, NULL::BIGINT AS mem
      FROM read_csv($cpu, columns = {ts: TIMESTAMP, server_id: VARCHAR, cpu_pct: DOUBLE})
    UNION ALL
    SELECT ts, server_id, NULL, round(mem_pct * 1e6)::BIGINT
      FROM read_csv($mem, columns = {ts: TIMESTAMP, server_id: VARCHAR, mem_pct: DOUBLE})
  ), panes AS (
    SELECT server_id, time_bucket(INTERVAL 10 seconds, ts) AS pane,
      sum(cpu)::BIGINT AS cpu, count(cpu) AS cpus, sum(mem)::BIGINT AS mem, count(mem) AS mems
    FROM samples GROUP BY ALL
  ), windows AS (
    SELECT server_id, pane - back * INTERVAL 10 seconds AS start,
      sum(cpu)::BIGINT AS cpu, sum(cpus)::BIGINT AS cpus,
      sum(mem)::BIGINT AS mem, sum(mems)::BIGINT AS mems
    FROM panes, range(3) AS backs(back) GROUP BY ALL
  ), reported AS (
    SELECT server_id, start,
      (2 * cpu + 10000 * cpus) // nullif(20000 * cpus, 0) AS cpu,
      (2 * mem + 10000 * mems) // nullif(20000 * mems, 0) AS mem,
    FROM windows
    -- The earliest window ends with the pane of the first sample.
    QUALIFY start >= min(start) OVER (PARTITION BY server_id) + INTERVAL 20 seconds
  )
  SELECT server_id,
    strftime(start, '%H:%M:%S') AS window_start,
    strftime(start + INTERVAL 30 seconds, '%H:%M:%S') AS window_end,
    cpu // 100 || '.' || lpad((cpu % 100)::VARCHAR, 2, '0') AS avg_cpu,
    mem // 100 || '.' || lpad((mem % 100)::VARCHAR, 2, '0') AS avg_mem,
    CASE
      WHEN cpu >= 8000 AND mem >= 8900 THEN 'Intense resource spike'
      WHEN cpu >= 8000 THEN 'Performance spike suspected'
      WHEN mem >= 8900 THEN 'Memory saturation suspected'
    END AS alert
  FROM reported ORDER BY server_id, start
) TO '{out}' (HEADER, DELIMITER ',')
"""

cpu_path, mem_path, out_path = sys.argv[1:]
duckdb.execute(QUERY.replace("{out}", out_path), {"cpu": cpu_path, "mem": mem_path})
