# An agent process with an inbox socket: it runs the given MCP server as its child, records every line from its inbox, and runs
# the shell commands that it gets.
#   agent.pl FOLDER [FLAG…] -- SERVER…
# FOLDER/inbox is the socket, FOLDER/frames the recorded lines, FOLDER/orders a pipe of shell commands.
use strict;
use warnings;
use IO::Handle;
use IO::Select;
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

my $orders = fork() // die "fork: $!";
if (!$orders) {
    open STDIN, '+<', "$folder/orders" or die "orders: $!";
    open STDOUT, '>', '/dev/null';
    exec 'sh', '-c', 'while read -r order; do eval "$order"; done';
}
# The server inherits this pipe, which ends with it. A signal could arrive just before a wait begins, and would not end it.
$^F = 255;
pipe my $alive, my $open or die "pipe: $!";
my $server = fork() // die "fork: $!";
exec @server if !$server;
close STDIN;
close STDOUT;
close $open;

# Waits until there is something to read. When the server ends, so does this program.
sub wait_for {
    my ($input) = @_;
    my @ready = IO::Select->new($input, $alive)->can_read;
    return if !grep { $_ == $alive } @ready;
    waitpid $server, 0;
    kill 'KILL', $orders;
    exit($? >> 8);
}

while (1) {
    wait_for($inbox);
    my $client = $inbox->accept or next;
    my $text = '';
    do {
        # A writer that is killed may leave the beginning of a line.
        print $frames $1 while $text =~ s/\A(.*\n)//;
        wait_for($client);
    } while sysread $client, $text, 65536, length $text;
}
