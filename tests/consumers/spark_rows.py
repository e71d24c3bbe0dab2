"""Prints the rows of an export as Spark reads them, as one JSON line; needs pyspark alone.

python tests/consumers/spark_rows.py EXPORT
"""

import json
import sys

import pyspark
from pyspark.sql import SparkSession
from pyspark.sql.types import TimestampType


def main(folder: str) -> None:
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        # Another zone than that of the data, so that a time without one would be off.
        .config("spark.sql.session.timeZone", "America/New_York")
        .getOrCreate()
    )
    # Partitions are found by the names of folders; the filter leaves out what is no Parquet.
    users = spark.read.option("pathGlobFilter", "*.parquet").parquet(folder)
    for field in users.schema.fields:
        if isinstance(field.dataType, TimestampType):
            users = users.withColumn(field.name, users[field.name].cast("double"))
    rows = [row.asDict() for row in users.collect()]
    print(json.dumps({"version": pyspark.__version__, "rows": rows}))


if __name__ == "__main__":
    main(*sys.argv[1:])
