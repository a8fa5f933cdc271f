"""From records to tables, figures and sentences; knows no experiment."""
