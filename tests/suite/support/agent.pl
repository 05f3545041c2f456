# An agent process with an inbox socket: it runs the given MCP server as its child, records every line from its inbox, and runs
# the shell commands that it gets.
#   agent.pl FOLDER [FLAG…] -- SERVER…
# FOLDER/inbox is the socket, FOLDER/frames the recorded lines, FOLDER/orders a pipe of shell commands.
use strict;
use warnings;
use IO::Handle;
use IO::Socket::UNIX;

my ($folder, @server) = @ARGV;
while (@server && shift(@server) ne '--') { }
my $path = "$folder/inbox";
umask 0077;
my $inbox = IO::Socket::UNIX->new(Local => $path, Listen => 64) or die "$path: $!";
open my $frames, '>>', "$folder/frames" or die "frames: $!";
$frames->autoflush(1);
$ENV{CLAUDE_PID} = $$;
$ENV{CLAUDE_CODE_MESSAGING_SOCKET} = $path;
$ENV{CLAUDE_CODE_MESSAGING_TOKEN} = "token-of-$$";
pipe my $nothing, my $open or die "pipe: $!";

my $orders = fork() // die "fork: $!";
if (!$orders) {
    open STDIN, '+<', "$folder/orders" or die "orders: $!";
    open STDOUT, '>', '/dev/null';
    exec 'sh', '-c', 'while read -r order; do eval "$order"; done';
}
my $server = fork() // die "fork: $!";
exec @server if !$server;
close STDIN;
close STDOUT;
$SIG{CHLD} = sub { if (waitpid($server, 1) == $server) { kill 'KILL', $orders; exit($? >> 8) } };
while (1) {
    my $client = $inbox->accept or next;
    # A writer that is killed may leave the beginning of a line.
    while (my $line = <$client>) { print $frames $line if $line =~ /\n\z/ }
}
