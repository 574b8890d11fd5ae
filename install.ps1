<#
.SYNOPSIS
Installs tunnel-rs, tunnel-rs-ice and tunnel-rs-vpn for the user who runs this, or removes them.

.DESCRIPTION
The programs get an environment of their own below %LOCALAPPDATA%\tunnel-rs, and a directory with
the three of them is added to the user's PATH. No administrator rights are needed. Packages come
from where your pip is set up to get them.

.EXAMPLE
.\install.ps1
The newest release. Where Windows lets no scripts run:
powershell -ExecutionPolicy Bypass -File install.ps1

.EXAMPLE
.\install.ps1 -Prerelease
The newest version, also if it is a preview.

.EXAMPLE
.\install.ps1 v1.2.0
This version: a tag of the project, with or without the v.

.EXAMPLE
.\install.ps1 -Uninstall
Remove it again; configuration and keys stay.
#>
[CmdletBinding(SupportsShouldProcess)]
param(
    # A version, or a tag of the project.
    [Parameter(Position = 0)]
    [ValidatePattern('^[0-9A-Za-z.+!-]*$')]
    [string] $Version = '',

    # Previews count as versions, too.
    [switch] $Prerelease,

    # Take packages from this directory of wheels alone, without a network.
    [string] $From = '',

    # Install this wheel of tunnel-rs.
    [string] $Wheel = '',

    # What the wheel must hash to.
    [string] $Sha256 = '',

    # Versions and hashes of all that it needs: whatever does not match is refused. Taken by itself
    # when constraints.txt is beside this script.
    [string] $Constraints = '',

    # Do without the constraints.txt beside this script.
    [switch] $NoConstraints,

    # Of uvloop and vpn, with commas between them.
    [ValidatePattern('^[a-z,]*$')]
    [string] $Extras = '',

    # Where all of it goes. Default: %LOCALAPPDATA%\tunnel-rs.
    [string] $Prefix = '',

    # The Python to use: 3.11 or newer. Default: the first one found.
    [string] $Python = '',

    # Remove what this script has installed.
    [switch] $Uninstall
)

Set-StrictMode -Version 3
$ErrorActionPreference = 'Stop'
# Exit codes are looked at here, whatever the user has set.
Set-Variable PSNativeCommandUseErrorActionPreference $false -WhatIf:$false -Confirm:$false

function Exit-WithError([string] $Text) {
    [Console]::Error.WriteLine("install.ps1: $Text")
    exit 1
}

if ([Environment]::OSVersion.Platform -ne 'Win32NT') {
    Exit-WithError 'this script is for Windows; install.sh is for all other systems'
}
if (-not $Prefix) { $Prefix = Join-Path $env:LOCALAPPDATA 'tunnel-rs' }
$Prefix = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Prefix)
$Package = 'tunnel-rs'
$Programs = 'tunnel-rs', 'tunnel-rs-ice', 'tunnel-rs-vpn'
$Bin = Join-Path $Prefix 'bin'
$Mark = Join-Path $Prefix '.installed-by-tunnel-rs'

function Get-UserPath {
    # Not expanded: %VARIABLES% in it have to stay what they are.
    $key = [Microsoft.Win32.Registry]::CurrentUser.OpenSubKey('Environment')
    try {
        $text = $key.GetValue('Path', '', 'DoNotExpandEnvironmentNames')
        return @($text -split ';' | Where-Object { $_ })
    }
    finally { $key.Dispose() }
}

function Write-UserPath([string[]] $Entries) {
    $key = [Microsoft.Win32.Registry]::CurrentUser.OpenSubKey('Environment', $true)
    try { $key.SetValue('Path', ($Entries -join ';'), 'ExpandString') }
    finally { $key.Dispose() }
    # Tells programs that run, the desktop among them, that the environment has changed. An empty
    # text would stay there as a variable: it takes a null that PowerShell does not make a text of.
    $name = 'tunnel_rs_install'
    [Environment]::SetEnvironmentVariable($name, '1', 'User')
    [Environment]::SetEnvironmentVariable($name, [NullString]::Value, 'User')
}

# Whether a program runs and succeeds. The rest of the script stops at errors, but Windows PowerShell
# takes each line that a program writes to a redirected stderr for one.
function Test-Run([string] $Program, [string[]] $Arguments) {
    $ErrorActionPreference = 'Continue'
    try { & $Program @Arguments 2>$null | Out-Null }
    catch { return $false }
    return $LASTEXITCODE -eq 0
}

# The same, and what it says is shown.
function Invoke-Program([string] $Program, [string[]] $Arguments) {
    $ErrorActionPreference = 'Continue'
    try { & $Program @Arguments | Out-Host }
    catch { return $false }
    return $LASTEXITCODE -eq 0
}

function Test-Python([string] $Candidate) {
    # The Python of the Microsoft Store that is not there yet answers with an error, too.
    return Test-Run $Candidate @(
        '-c', 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))')
}

function Invoke-Pip([string] $Environment, [string[]] $Arguments) {
    $program = Join-Path $Environment 'Scripts\python.exe'
    return Invoke-Program $program (
        @('-m', 'pip', '--disable-pip-version-check', '--no-input') + $Arguments)
}

# The programs, and those they have replaced.
function Get-Launcher {
    foreach ($program in $Programs) {
        if (Test-Path -LiteralPath $Bin) {
            Get-ChildItem -LiteralPath $Bin -File -Filter "$program.exe*"
        }
    }
}

# Environments other than this one. One that cannot be renamed has a program that runs.
function Clear-OldEnvironment([string] $Except) {
    foreach ($old in @(Get-ChildItem -LiteralPath $Prefix -Directory -Filter 'env-*')) {
        if ($old.Name -eq $Except) { continue }
        try {
            $gone = "$($old.FullName)-removed"
            Move-Item -LiteralPath $old.FullName -Destination $gone
            Remove-Item -LiteralPath $gone -Recurse -Force
        }
        catch { Write-Output "left $($old.FullName): a program of it runs; end it" }
    }
}

if ($Uninstall) {
    if (-not (Test-Path -LiteralPath $Mark)) {
        Exit-WithError "nothing of ours is in $Prefix; was it installed with another -Prefix?"
    }
    if (-not $PSCmdlet.ShouldProcess($Prefix, 'remove')) { exit 0 }
    # What is ours and nothing else: the user may have named a directory with other things in it.
    Clear-OldEnvironment -Except ''
    foreach ($file in Get-Launcher) {
        Remove-Item -LiteralPath $file.FullName -Force -ErrorAction SilentlyContinue
    }
    if ((Get-Launcher) -or (Get-ChildItem -LiteralPath $Prefix -Directory -Filter 'env-*')) {
        Exit-WithError "not all of $Prefix could be removed: end the programs that run, and try again"
    }
    Remove-Item -LiteralPath $Mark
    foreach ($directory in $Bin, $Prefix) {
        $there = Test-Path -LiteralPath $directory
        if ($there -and -not (Get-ChildItem -LiteralPath $directory -Force)) {
            Remove-Item -LiteralPath $directory
        }
    }
    Write-UserPath @(Get-UserPath | Where-Object { $_ -ne $Bin })
    Write-Output "removed what was in $Prefix; your configuration and keys are where they were"
    exit 0
}

if ($Version -and $Wheel) { Exit-WithError 'give a version or -Wheel, not both' }
if ($Sha256 -and -not $Wheel) { Exit-WithError '-Sha256 goes with -Wheel' }

if ($Python) {
    if (-not (Test-Python $Python)) { Exit-WithError "$Python is no Python 3.11 or newer" }
}
else {
    $Python = 'python', 'python3', 'py' | Where-Object { Test-Python $_ } | Select-Object -First 1
    if (-not $Python) {
        Exit-WithError ('no Python 3.11 or newer was found. Install one (winget install ' +
            'Python.Python.3.13), or name it with -Python')
    }
}

if ($Wheel) {
    if (-not (Test-Path -LiteralPath $Wheel -PathType Leaf)) {
        Exit-WithError "there is no wheel $Wheel"
    }
    $found = (Get-FileHash -LiteralPath $Wheel -Algorithm SHA256).Hash
    if ($Sha256 -and $found -ne $Sha256) {
        Exit-WithError "$Wheel is not what it should be: its SHA-256 is $found. Nothing was installed"
    }
}
if (-not $Constraints -and -not $NoConstraints -and $PSScriptRoot) {
    $beside = Join-Path $PSScriptRoot 'constraints.txt'
    if (Test-Path -LiteralPath $beside) { $Constraints = $beside }
}
if ($Constraints -and -not (Test-Path -LiteralPath $Constraints)) {
    Exit-WithError "there is no file $Constraints"
}
if ((Test-Path -LiteralPath $Bin) -and -not (Test-Path -LiteralPath $Mark)) {
    Exit-WithError "$Bin is there and is not ours; choose another -Prefix"
}
if (-not $PSCmdlet.ShouldProcess($Prefix, 'install')) { exit 0 }

# The new environment is made beside the one in use, which stays until the new one is whole.
$name = "env-$PID"
$new = Join-Path $Prefix $name
$done = $false
try {
    if (-not (Invoke-Program $Python @('-m', 'venv', $new))) {
        Exit-WithError "$Python could not make an environment in $new"
    }

    $arguments = @('install', '--quiet')
    if ($From) { $arguments += '--no-index', '--find-links', $From }
    if ($Constraints) {
        Write-Output "installing what $Package needs, by the hashes in $Constraints"
        $needed = $arguments + @('--require-hashes', '--requirement', $Constraints)
        if (-not (Invoke-Pip $new $needed)) {
            Exit-WithError "what $Package needs could not be installed: see above. Nothing was changed"
        }
        if ($Extras) {
            Write-Output "note: what the extras bring is not in $Constraints, and comes without a hash"
        }
        else { $arguments += '--no-deps' }
    }
    if ($Prerelease) { $arguments += '--pre' }
    $suffix = if ($Extras) { "[$Extras]" } else { '' }
    $what = if ($Wheel) { "$Wheel$suffix" } else { "$Package$suffix" }
    if ($Version) { $what = "$what==$($Version -replace '^v', '')" }
    Write-Output "installing $what"
    if (-not (Invoke-Pip $new ($arguments + $what))) {
        Exit-WithError "$what could not be installed: see above. Nothing was changed"
    }
    if (-not (Invoke-Pip $new @('--quiet', 'check'))) {
        Exit-WithError 'the versions do not go together: see above. Nothing was changed'
    }
    foreach ($program in $Programs) {
        if (-not (Test-Run (Join-Path $new "Scripts\$program.exe") @('--version'))) {
            Exit-WithError "$program does not start. Nothing was changed"
        }
    }
    New-Item -Path $Mark -ItemType File -Force | Out-Null
    New-Item -Path $Bin -ItemType Directory -Force | Out-Null
    foreach ($program in $Programs) {
        # A launcher finds its environment by a path inside it, so that a copy works anywhere.
        $launcher = Join-Path $new "Scripts\$program.exe"
        Copy-Item -LiteralPath $launcher -Destination (Join-Path $Bin "$program.exe.new")
    }
    $done = $true
}
finally {
    if (-not $done -and (Test-Path -LiteralPath $new)) {
        Remove-Item -LiteralPath $new -Recurse -Force
    }
}
foreach ($program in $Programs) {
    # One that runs can be renamed, not replaced.
    $link = Join-Path $Bin "$program.exe"
    if (Test-Path -LiteralPath $link) { Move-Item -LiteralPath $link -Destination "$link.$PID" }
    Move-Item -LiteralPath "$link.new" -Destination $link
}
Get-Launcher | Where-Object { $_.Extension -ne '.exe' } |
    Remove-Item -Force -ErrorAction SilentlyContinue
Clear-OldEnvironment -Except $name

Write-Output "installed $(& (Join-Path $Bin "$Package.exe") --version); the programs are in $Bin"
if ((Get-UserPath) -notcontains $Bin) {
    Write-UserPath (@(Get-UserPath) + $Bin)
    $env:Path = "$env:Path;$Bin"
    Write-Output "$Bin was added to your PATH; terminals that are open already do not know it"
}
