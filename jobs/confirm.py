"""Stage `confirm` on Spark: judge each pair by its pixels.

spark-submit --master spark://HOST:7077 jobs/confirm.py [-c conf/cluster.yaml] output.run_dir=URL …
"""

from dedup.cli.submit import submit

if __name__ == "__main__":
    submit(__doc__, "confirm")
