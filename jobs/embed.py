"""Stage `embed` on Spark: stream shards through the encoder.

spark-submit --master spark://HOST:7077 jobs/embed.py [-c conf/cluster.yaml] output.run_dir=URL input.shards=URL
"""

from dedup.cli.submit import submit

if __name__ == "__main__":
    submit(__doc__, "embed")
