"""What people see of a campaign: tables, figures, stories and files. Nothing here changes one."""
